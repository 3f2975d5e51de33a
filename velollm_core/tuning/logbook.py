"""Where a tuning keeps its samples, so that one that was stopped goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import asdict, frozen

from velollm_core.autopilot.journal import RESUMABLE_SECONDS, Journal
from velollm_core.benchmark.pair import score
from velollm_core.benchmark.store import RunLog, read_runs
from velollm_core.config import state_dir
from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.status import Status
    from velollm_core.backends.variation import Variation
    from velollm_core.benchmark.pair import Score
    from velollm_core.benchmark.workload import Workload
    from velollm_core.planning.optimized import Optimized


@frozen
class Logbook:
    """One tuning's folder: the samples of the race, those of the final, and the outcome once there is one."""

    folder: Path
    seed: str

    @property
    def race_path(self) -> Path:
        """Samples of the race."""
        return self.folder / "race.jsonl"

    @property
    def final_path(self) -> Path:
        """Samples of the final; `velollm compare` reads it."""
        return self.folder / "final.jsonl"

    @property
    def outcome_path(self) -> Path:
        """Where the outcome is written; its presence says that the tuning has ended."""
        return self.folder / "tuning.json"

    def race_runs(self) -> tuple[RunLog, ...]:
        """What earlier runs of this tuning measured in the race."""
        return _runs(self.race_path)

    def final_journal(self, workload: Mapping[str, object], names: tuple[str, str]) -> Journal:
        """The final's journal: it asks what the race asked, and goes on with the pairs of these two that are kept."""
        asked = RunLog("race", {"workload": workload})
        kept = [run for run in _runs(self.final_path) if set(run.head.get("arms", {})) == set(names)]
        # What is asked is read off the last one.
        return Journal(self.final_path, (*kept, asked))


def open_logbook(
    found: Optimized, status: Status, variations: Sequence[Variation], shape: Shape, *, fresh: bool = False
) -> Logbook:
    """The newest unfinished logbook of this very question of the last day, else a new one."""
    root = state_dir() / "tune" / _key(found, status, variations, shape)
    if not fresh:
        for folder in sorted(root.glob("*"), reverse=True):
            race = folder / "race.jsonl"
            if (folder / "tuning.json").exists() or not race.exists():
                continue
            if time.time() - race.stat().st_mtime <= RESUMABLE_SECONDS:
                return Logbook(folder, folder.name)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = root / f"{stamp}-{secrets.token_hex(2)}"
    return Logbook(folder, folder.name)


def kept_scores(runs: Sequence[RunLog]) -> dict[str, list[Score]]:
    """The scores of valid blocks by candidate, in the order in which they were measured."""
    scores: dict[str, list[Score]] = {}
    for run in runs:
        for block in run.blocks:
            if block.noise.verdict == "invalid":
                continue
            if found := score(sample for sample in run.samples if sample.block == block.index):
                scores.setdefault(block.arm, []).append(found)
    return scores


def kept_workload(runs: Sequence[RunLog]) -> Workload | None:
    """What earlier runs asked: a race that goes on asks the very same."""
    return Journal(Path(), tuple(runs[-1:])).workload


def _runs(path: Path) -> tuple[RunLog, ...]:
    try:
        runs = tuple(read_runs(path))
        return runs if kept_workload(runs) else ()
    except (VeloError, KeyError, TypeError, ValueError):
        return ()


def _key(found: Optimized, status: Status, variations: Sequence[Variation], shape: Shape) -> str:
    model = found.model.spec
    described = {
        "backend": [found.plan.backend, status.version, status.location],
        "model": [model.name, model.source, model.tensor_bytes],
        "plan": [[each.name, each.value] for each in found.plan.settings],
        "variations": [[dict(option.values) for option in each.options] for each in variations],
        "shape": asdict(shape),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]

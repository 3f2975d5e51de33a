"""Where the autopilot keeps its samples, so that a run that was stopped goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, frozen

from velollm_core.benchmark.store import RunLog, read_runs
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.config import state_dir
from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.status import Status
    from velollm_core.benchmark.arm import Arm
    from velollm_core.models.spec import ModelSpec

RESUMABLE_SECONDS = 24 * 3600.0


@frozen
class Journal:
    """One experiment's file of samples; ``earlier`` are the runs that were stopped before it had a verdict."""

    path: Path
    earlier: tuple[RunLog, ...] = ()

    @property
    def verdict_path(self) -> Path:
        """Where the outcome is written; its presence says that the experiment has ended."""
        return self.path.with_suffix(".json")

    @property
    def workload(self) -> Workload | None:
        """What the earlier runs measured: a comparison goes on with the very same."""
        return _workload(self.earlier[-1].head["workload"]) if self.earlier else None


def experiment_key(status: Status, model: ModelSpec, arms: tuple[Arm, Arm], shape: Shape, backend: str) -> str:
    """A name for everything that must be equal for samples to belong together."""
    described = {
        "backend": [backend, status.version, status.location],
        "model": [model.name, model.source, model.tensor_bytes],
        "arms": [[arm.name, [[each.name, each.value, each.where] for each in arm.settings]] for arm in arms],
        "shape": asdict(shape),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def open_journal(key: str, *, fresh: bool = False) -> Journal:
    """The newest unfinished journal of ``key`` of the last day, else a new one."""
    folder = state_dir() / "autopilot" / key
    if not fresh:
        for path in sorted(folder.glob("*.jsonl"), reverse=True):
            if path.with_suffix(".json").exists() or time.time() - path.stat().st_mtime > RESUMABLE_SECONDS:
                continue
            if earlier := _readable(path):
                return Journal(path, earlier)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Journal(folder / f"{stamp}-{secrets.token_hex(2)}.jsonl")


def _readable(path: Path) -> tuple[RunLog, ...]:
    try:
        runs = tuple(read_runs(path))
        return runs if runs and _workload(runs[-1].head["workload"]) else ()
    except (VeloError, KeyError, TypeError, ValueError):
        return ()


def _workload(fields: dict[str, Any]) -> Workload:
    tasks = tuple(
        Task(str(each["name"]), str(each["prompt"]), int(each["max_tokens"]), int(each["repeats"]))
        for each in fields["tasks"]
    )
    return Workload(str(fields["name"]), str(fields["model"]), tasks, concurrency=int(fields["concurrency"]))

"""Predicted against measured, kept in the state directory: one JSON object a line, appended, never rewritten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from attrs import asdict

from velollm_core.config import state_dir
from velollm_core.errors import VeloError
from velollm_core.models.correction import Observation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

# The last lines are enough to learn from, and bound what a command reads.
_KEPT = 500


def record(observations: Iterable[Observation]) -> None:
    """Append ``observations`` of this machine.

    Raises:
        VeloError: the state directory cannot be written.
    """
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(each)) + "\n" for each in observations)
    except OSError as error:
        raise VeloError(f"{path}: cannot be written ({error.strerror or error})") from error


def recorded() -> tuple[Observation, ...]:
    """The last observations of this machine; a damaged line is passed over, an absent file is an empty one."""
    try:
        lines = _path().read_text(encoding="utf-8", errors="replace").splitlines()[-_KEPT:]
    except OSError:
        return ()
    return tuple(observation for line in lines if (observation := _read(line)) is not None)


def _read(line: str) -> Observation | None:
    try:
        fields = json.loads(line)
        return Observation(
            phase="prefill" if fields["phase"] == "prefill" else "decode",
            where=str(fields["where"]),
            backend=str(fields["backend"]),
            model=str(fields["model"]),
            predicted=float(fields["predicted"]),
            measured=float(fields["measured"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _path() -> Path:
    return state_dir() / "observations.jsonl"

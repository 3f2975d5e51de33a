"""What was applied and undone on this machine, kept in the state directory: one JSON object a line."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import asdict

from velollm_core.config import state_dir
from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from velollm_core.applying import Applied
    from velollm_core.backends.change import Change


def remember(applied: Applied) -> Path:
    """Append ``applied`` with the time of now; the file it stands in.

    Raises:
        VeloError: the state directory cannot be written.
    """
    return _append({"ok": applied.ok, **asdict(applied)})


def remember_undone(backend: str, change: Change) -> Path:
    """Append that ``change`` was taken back; the file it stands in.

    Raises:
        VeloError: the state directory cannot be written.
    """
    return _append({"backend": backend, "undone": asdict(change)})


def applied_last() -> dict[str, str]:
    """By backend, when settings were last applied to it and held; damaged lines are passed over."""
    try:
        lines = _path().read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    times = {}
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            entry = json.loads(line)
            if entry.get("ok"):
                times[str(entry["backend"])] = str(entry["time"])
    return times


def _append(fields: Mapping[str, object]) -> Path:
    path = _path()
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **fields}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise VeloError(f"{path}: what was applied cannot be recorded ({error.strerror or error})") from error
    return path


def _path() -> Path:
    return state_dir() / "history.jsonl"

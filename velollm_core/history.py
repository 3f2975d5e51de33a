"""What was applied on this machine, kept in the state directory: one JSON object a line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from attrs import asdict

from velollm_core.config import state_dir
from velollm_core.errors import VeloError

if TYPE_CHECKING:
    from pathlib import Path

    from velollm_core.applying import Applied


def remember(applied: Applied) -> Path:
    """Append ``applied`` with the time of now; the file it stands in.

    Raises:
        VeloError: the state directory cannot be written.
    """
    path = state_dir() / "history.jsonl"
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "ok": applied.ok, **asdict(applied)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:
        raise VeloError(f"{path}: what was applied cannot be recorded ({error.strerror or error})") from error
    return path

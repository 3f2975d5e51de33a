"""What VeloLLM has changed about a server, kept on disk so that it can be undone by another run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from attrs import asdict, field, frozen

from velollm_core.config import state_dir
from velollm_core.errors import VeloError


@frozen
class Applied:
    """One change: the derived model ``name`` of ``base`` (empty: none), and the variables written to ``channel``.

    ``existed`` tells that another model had the name. ``before`` is what the channel held, as `Channel.read` gave it.
    ``url`` is the server's.
    """

    url: str
    base: str = ""
    name: str = ""
    existed: bool = False
    channel: str = ""
    path: str = ""
    environment: Mapping[str, str] = field(factory=dict)
    before: Mapping[str, str] = field(factory=dict)


def load_applied(url: str) -> Applied | None:
    """The change that is in force at ``url``; raises `VeloError` where the record is damaged."""
    path = _path()
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        entry = records.get(url)
        return Applied(**entry) if entry else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise VeloError(f"{path}: the record of what was applied cannot be read ({error})") from error


def save_applied(url: str, applied: Applied | None) -> None:
    """Keep the change for ``url``, or forget it for None; the file is replaced whole."""
    path = _path()
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        records = {}
    records.pop(url, None)
    if applied is not None:
        records[url] = asdict(applied)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(records, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise VeloError(f"{path}: cannot be written ({error.strerror or error})") from error


def _path() -> Path:
    return state_dir() / "ollama-applied.json"

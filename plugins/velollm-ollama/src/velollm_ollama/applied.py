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
    """One change to the server at ``url``: the derived model ``name`` of ``base``, or variables written to ``channel``.

    ``base`` is empty for variables. ``existed`` tells that another model had the name. ``before`` is what the channel
    held, as `Channel.read` gave it.
    """

    url: str
    base: str = ""
    name: str = ""
    existed: bool = False
    channel: str = ""
    path: str = ""
    environment: Mapping[str, str] = field(factory=dict)
    before: Mapping[str, str] = field(factory=dict)


def load_applied(url: str) -> dict[str, Applied]:
    """The changes in force at ``url``, by base model; raises `VeloError` where the record is damaged."""
    path = _path()
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
        found = [Applied(**entry) for entry in records]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise VeloError(f"{path}: the record of what was applied cannot be read ({error})") from error
    return {entry.base: entry for entry in found if entry.url == url}


def save_applied(applied: Applied) -> None:
    """Keep one change in place of an earlier one to the same model or environment."""
    _write([*_others(applied), applied])


def forget_applied(applied: Applied) -> None:
    """The change is no longer in force."""
    _write(_others(applied))


def _others(applied: Applied) -> list[Applied]:
    path = _path()
    try:
        records = [Applied(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []
    return [entry for entry in records if (entry.url, entry.base) != (applied.url, applied.base)]


def _write(records: list[Applied]) -> None:
    """Replace the file whole, so that an interruption leaves the old one."""
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps([asdict(entry) for entry in records], indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise VeloError(f"{path}: cannot be written ({error.strerror or error})") from error


def _path() -> Path:
    return state_dir() / "ollama-applied.json"

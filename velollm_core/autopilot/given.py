"""Settings as people type them: ``threads=1,flash-attn=off``, or a file that VeloLLM wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from velollm_core.backends.setting import Setting, Value, Where
from velollm_core.errors import VeloError

REASON = "asked for"
WHERES: tuple[Where, ...] = ("env", "flag", "request", "model", "config")


def given_settings(text: str, known: Iterable[Setting]) -> tuple[Setting, ...]:
    """The settings of ``text``; names of ``known`` ones may be typed without their dashes and in lower case.

    A name that is not known is handed on as it is: the backend refuses what it does not have.

    Raises:
        VeloError: the text or the file cannot be read as settings.
    """
    if text.endswith(".json"):
        return _from_file(Path(text))
    spelled = {_plain(setting.name): setting for setting in known}
    found = []
    for part in text.split(","):
        name, sign, value = part.strip().partition("=")
        if not sign or not name or not value:
            raise VeloError(f"{part.strip()!r}: settings are written name=value,name=value, or as a .json file")
        like = spelled.get(_plain(name))
        where: Where = like.where if like else "flag"
        found.append(Setting(like.name if like else name, _value(value), where, REASON, "default"))
    return tuple(found)


def overridden(base: Sequence[Setting], more: Sequence[Setting]) -> tuple[Setting, ...]:
    """``base`` with the settings of ``more`` in place of those of the same name."""
    names = {setting.name for setting in more}
    return (*(setting for setting in base if setting.name not in names), *more)


def describe_settings(settings: Sequence[Setting]) -> str:
    """``threads=1,flash-attn=off``; ``default`` for none."""
    return ",".join(f"{setting.name.lstrip('-')}={setting.value}" for setting in settings) or "default"


def _plain(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def _value(text: str) -> Value:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _from_file(path: Path) -> tuple[Setting, ...]:
    """The settings of a document of `velollm optimize`, of the autopilot, or of a backend's own JSON."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
        entries = document["settings"] if "settings" in document else document["plan"]["settings"]
        return tuple(_setting(entry) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VeloError(
            f"{path}: holds no settings ({error!r:.80}); write some with `velollm optimize --json`"
        ) from error


def _setting(entry: dict[str, Any]) -> Setting:
    where = entry["where"]
    if where not in WHERES:
        raise ValueError(f"where is {where!r}")
    return Setting(str(entry["name"]), entry["value"], where, str(entry.get("reason", REASON)), "default")

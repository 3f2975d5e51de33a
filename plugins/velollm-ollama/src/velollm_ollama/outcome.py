"""What became of each setting of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from attrs import frozen

from velollm_core.backends.setting import Setting, Value
from velollm_ollama.settings import as_text

State = Literal["applied", "different", "not read back"]


@frozen
class Outcome:
    """``applied`` is only what was read back as it was asked for."""

    name: str
    asked: Value
    found: Value
    state: State


def read_outcomes(settings: Iterable[Setting], found: Mapping[str, Value]) -> tuple[Outcome, ...]:
    """Each setting beside what the server says; what a request carries is no state of the server."""
    return tuple(_outcome(setting, found) for setting in settings if setting.where != "request")


def _outcome(setting: Setting, found: Mapping[str, Value]) -> Outcome:
    value = found.get(setting.name)
    if setting.name not in found:
        return Outcome(setting.name, setting.value, None, "not read back")
    same = as_text(value).lower() == as_text(setting.value).lower()
    return Outcome(setting.name, setting.value, value, "applied" if same else "different")

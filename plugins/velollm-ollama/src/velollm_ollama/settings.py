"""A plan's settings, sorted by where they go: the two kinds are never mixed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velollm_core.backends.setting import Setting, Value


def environment_of(settings: Iterable[Setting]) -> dict[str, str]:
    """The server's variables as they are written: switches as 1 and 0."""
    return {setting.name: as_text(setting.value) for setting in settings if setting.where == "env"}


def parameters_of(settings: Iterable[Setting]) -> dict[str, Value]:
    """The parameters that a derived model holds."""
    return {setting.name: setting.value for setting in settings if setting.where == "model"}


def as_text(value: Value) -> str:
    """A value as an environment variable holds it."""
    if isinstance(value, bool):
        return "1" if value else "0"
    return "" if value is None else str(value)

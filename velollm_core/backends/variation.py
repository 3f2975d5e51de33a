"""What may be varied about a plan: the ways that only measuring can decide between."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from velollm_core.backends.setting import Setting, Value


@frozen
class Option:
    """One way: ``settings`` replace those of the same names, ``load`` the fields of `LoadSettings` with them."""

    settings: tuple[Setting, ...]
    load: Mapping[str, Value] = field(factory=dict)

    @property
    def values(self) -> Mapping[str, Value]:
        """The settings' values by name."""
        return {setting.name: setting.value for setting in self.settings}


@frozen
class Variation:
    """One thing to decide, called ``name``, and its ``options``; each sets the same names."""

    name: str
    options: tuple[Option, ...]

"""One of the configurations that a comparison sets against each other."""

from __future__ import annotations

from attrs import frozen

from velollm_core.backends.setting import Setting


@frozen
class Arm:
    """A name and the settings to load the model with; no settings mean the engine's own defaults."""

    name: str
    settings: tuple[Setting, ...] = ()

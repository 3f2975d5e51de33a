"""One setting of a backend, and the plan made of them."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.load import LoadSettings
from velollm_core.models.prediction import Prediction as Prediction

Where = Literal["env", "flag", "request", "model", "config"]
Evidence = Literal["measured", "predicted", "rule", "default"]
Value = str | int | float | bool | None


@frozen
class Setting:
    """``name`` as the backend spells it, its value, where it goes, why, and on what evidence.

    ``where``: an environment variable, a command-line flag, a field of each request, the model's own file (Modelfile,
    derived model, model YAML), or a configuration file.
    """

    name: str
    value: Value
    where: Where
    reason: str
    evidence: Evidence


@frozen
class Plan:
    """The settings for one backend and model, the memory they need, and whether it is free now.

    ``load`` is the same plan in the engine's terms, from which the memory was computed.
    """

    backend: str
    model: str
    settings: tuple[Setting, ...]
    load: LoadSettings | None = None
    memory: MemoryBreakdown | None = None
    fits: bool | None = None
    prediction: Prediction | None = None
    notes: tuple[str, ...] = ()

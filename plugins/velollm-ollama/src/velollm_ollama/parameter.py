"""One parameter of a request or model."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

ParameterKind = Literal["int", "float", "bool", "text"]


@frozen
class Parameter:
    """One option. ``loads`` marks those that a difference in reloads the model; ``low`` and ``high`` bound a number.

    ``default`` is Ollama's own, as text: some are chosen at load.
    """

    name: str
    kind: ParameterKind
    effect: str
    default: str
    loads: bool = False
    unit: str = ""
    low: float | None = None
    high: float | None = None
    trap: str = ""

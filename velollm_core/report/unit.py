"""One unit for all figures of a chart."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen


@frozen
class Unit:
    """A figure in the base unit times ``factor`` is one in ``name``."""

    factor: float
    name: str


def unit_of_seconds(values: Iterable[float]) -> Unit:
    """The unit in which the largest of ``values`` (seconds) reads well."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest < 1e-3:
        return Unit(1e6, "µs")
    return Unit(1e3, "ms") if largest < 1 else Unit(1.0, "s")

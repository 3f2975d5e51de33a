"""Figures that say how sure they are."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Basis = Literal["formula", "allocator", "measured", "nominal", "predicted"]


@frozen
class Interval:
    """The range a figure lies in; ``low == high`` for an exact one."""

    low: float
    high: float


@frozen
class Bytes:
    """A number of bytes with its source; ``interval`` is None where ``value`` is exact.

    ``basis`` names the source: ``formula`` (VeloLLM's own arithmetic over the header), ``allocator`` (what the
    engine itself would take), ``measured`` or ``nominal`` (a data sheet's).
    """

    value: int
    basis: Basis
    interval: Interval | None = None

    @property
    def low(self) -> int:
        """The fewest bytes it can be."""
        return int(self.interval.low) if self.interval else self.value

    @property
    def high(self) -> int:
        """The most bytes it can be."""
        return int(self.interval.high) if self.interval else self.value


@frozen
class Rate:
    """A speed in units a second (bytes for a bandwidth, tokens for a prediction), as an interval with its basis."""

    value: float
    basis: Basis
    interval: Interval | None = None

"""A central figure between the least and the most it can be, and the arithmetic that keeps it so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.figures import Basis, Interval, Rate

if TYPE_CHECKING:
    from collections.abc import Iterable


@frozen
class Span:
    """``low <= value <= high``, all positive or zero; products and quotients pair the ends that lie furthest apart."""

    value: float
    low: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Span:
        """A figure without doubt."""
        return cls(value, value, value)

    @classmethod
    def of(cls, rate: Rate) -> Span:
        """A `Rate` without its basis."""
        interval = rate.interval or Interval(rate.value, rate.value)
        return cls(rate.value, interval.low, interval.high)

    def __add__(self, other: Span) -> Span:
        return Span(self.value + other.value, self.low + other.low, self.high + other.high)

    def __mul__(self, other: Span) -> Span:
        return Span(self.value * other.value, self.low * other.low, self.high * other.high)

    def __rtruediv__(self, amount: float) -> Span:
        """``amount`` divided by this: the slow end becomes the long one."""
        return Span(amount / self.value, amount / self.high, amount / self.low)

    def at_least(self, other: Span) -> Span:
        """The larger of the two, end by end."""
        return Span(max(self.value, other.value), max(self.low, other.low), max(self.high, other.high))

    def at_most(self, other: Span) -> Span:
        """The smaller of the two, end by end."""
        return Span(min(self.value, other.value), min(self.low, other.low), min(self.high, other.high))

    def rate(self, basis: Basis = "predicted") -> Rate:
        """As a `Rate` with its interval."""
        return Rate(self.value, basis, Interval(self.low, self.high))


def total(spans: Iterable[Span]) -> Span:
    """The sum; zero for none."""
    result = Span.exact(0.0)
    for span in spans:
        result += span
    return result

"""From figures to places on paper, and the round figures that stand along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable

from attrs import frozen

LARGEST = 1e12
SMALLEST = 1e-9


@frozen
class Scale:
    """Takes ``low``…``high`` to ``start``…``stop``; what lies beyond is drawn at the edge. ``whole`` is for counts."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """Where ``value`` stands."""
        low, high, here = (self._plain(each) for each in (self.low, self.high, value))
        share = min(max((here - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int = 6) -> list[float]:
        """Round figures within the scale, about ``count`` of them."""
        # Where a logarithmic axis spans little, powers of ten would leave it bare.
        decades = self.log and self.high > 6 * self.low
        found = _decades(self.low, self.high) if decades else _steps(self.low, self.high, count)
        if self.whole:
            found = [value for value in found if value == round(value)]
        return found or [self.low, self.high]

    def _plain(self, value: float) -> float:
        return math.log(max(value, SMALLEST)) if self.log else value


def fit(values: Iterable[float], start: float, stop: float, *, zero: bool = False, log: bool = False) -> Scale:
    """A scale that holds all ``values``, from 0 on with ``zero``; there is always some room between its ends."""
    known = bounded(values)
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if log:
        low, high = max(low, SMALLEST), max(high, SMALLEST)
        return Scale(low / 1.1, high * 1.1, start, stop, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    return Scale(low if zero and low == 0 else low - margin, high + margin, start, stop)


def bounded(values: Iterable[float]) -> list[float]:
    """``values`` as far as they can be drawn: no NaN, no infinity, nothing beyond 10¹² or nearer to 0 than 10⁻⁹."""
    return [
        0.0 if abs(value) < SMALLEST else min(max(value, -LARGEST), LARGEST) for value in values if math.isfinite(value)
    ]


def spans_decades(values: Iterable[float]) -> bool:
    """Whether a linear axis would press most of the positive ``values`` into a corner."""
    known = sorted(bounded(values))
    return bool(known) and known[0] > 0 and known[-1] > 12 * known[len(known) // 2]


def tick_text(value: float) -> str:
    """A figure beside an axis, to four digits."""
    return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-")


def _steps(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [place * step for place in range(first, last + 1)][: 3 * count]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5) if last - first > 1 else (1, 1.5, 2, 3, 5, 7)
    every = max(1, (last - first) // 5)
    powers = range(first, last + 1, every)
    return [place for power in powers for factor in factors if low <= (place := factor * 10.0**power) <= high]

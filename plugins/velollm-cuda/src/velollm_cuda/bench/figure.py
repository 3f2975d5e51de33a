"""A measured figure, its spread, and the bar it is held against."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from statistics import median

from attrs import frozen


@frozen
class Figure:
    """The median of several runs, in ``unit``, and the span of all of them."""

    value: float
    unit: str
    low: float
    high: float

    @classmethod
    def of(cls, samples: Iterable[float], unit: str) -> Figure:
        """The figure of ``samples``; there must be one."""
        values = sorted(samples)
        return cls(median(values), unit, values[0], values[-1])

    def mapped(self, change: Callable[[float], float], unit: str) -> Figure:
        """The same runs seen otherwise: ``change`` is monotonous, rising or falling."""
        ends = sorted((change(self.low), change(self.high)))
        return Figure(change(self.value), unit, *ends)

    def __str__(self) -> str:
        span = f" ({_short(self.low)}–{_short(self.high)})" if self.low != self.high else ""
        return f"{_short(self.value)}{span} {self.unit}".strip()


@frozen
class Measurement:
    """What was measured of one shape or load; ``note`` says what could not be, and why."""

    name: str
    figures: dict[str, Figure]
    note: str = ""

    def __str__(self) -> str:
        figures = "; ".join(f"{name} {figure}" for name, figure in self.figures.items())
        note = f" [{self.note}]" if self.note else ""
        return f"{self.name}: {figures}{note}"

    def told(self) -> Measurement:
        """The same, once it has been written to stderr: a part that is cut short has said what it knew."""
        print(self, file=sys.stderr, flush=True)
        return self


@frozen
class Bar:
    """What a figure should reach: at least ``bound``, or with ``at_most`` not more. ``aim`` is what we hope for.

    ``reached`` is None where the card is not the one that the bars were set for.
    """

    name: str
    value: float
    unit: str
    bound: float
    at_most: bool
    aim: float | None
    reached: bool | None

    @classmethod
    def at_least(cls, name: str, figure: Figure, bound: float, *, judged: bool, aim: float | None = None) -> Bar:
        """``figure``'s median should be ``bound`` or more."""
        return cls(name, figure.value, figure.unit, bound, False, aim, figure.value >= bound if judged else None)

    @classmethod
    def no_more(cls, name: str, figure: Figure, bound: float, *, judged: bool, aim: float | None = None) -> Bar:
        """``figure``'s median should be ``bound`` or less."""
        return cls(name, figure.value, figure.unit, bound, True, aim, figure.value <= bound if judged else None)

    def __str__(self) -> str:
        verdict = {True: "reached", False: "MISSED", None: "no verdict: another card"}[self.reached]
        aim = f", aim {_short(self.aim)}" if self.aim is not None else ""
        sign = "≤" if self.at_most else "≥"
        return f"{verdict}: {self.name}: {_short(self.value)} {self.unit} ({sign} {_short(self.bound)}{aim})"


def _short(value: float) -> str:
    """Four digits, which is more than runs agree in."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

"""Figures as people read them."""

from __future__ import annotations

from velollm_core.benchmark.percentiles import Percentiles
from velollm_core.figures import Interval

MOST_PERCENT, MOST_RATIO = 10.0, 1000
_SCALES = ((1e6, "µs"), (1e3, "ms"), (1.0, "s"))


def seconds(value: float | None) -> str:
    """``850 µs``, ``12.3 ms``, ``1.25 s``, ``3 min 20 s``; ``–`` for None."""
    if value is None:
        return "–"
    if value < 1e-3:
        return f"{value * 1e6:.0f} µs"
    if value < 1:
        return f"{value * 1e3:.3g} ms"
    if value < 100:
        return f"{value:.3g} s"
    return f"{value // 60:.0f} min {value % 60:.0f} s"


def rate(value: float | None) -> str:
    """A rate to three figures, without its unit; ``–`` for None."""
    return "–" if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in percent; ``unknown`` for None, ``over 1000%`` beyond tenfold."""
    if value is None:
        return "unknown"
    return "over 1000%" if value > MOST_PERCENT else f"{value:.{digits}%}"


def ratio_interval(interval: Interval | None) -> str:
    """``0.98–1.31``; ``unknown`` for None. Beyond a thousandfold no figure is worth its digits."""
    if interval is None:
        return "unknown"
    high = f"over {MOST_RATIO}" if interval.high > MOST_RATIO else f"{interval.high:.3f}"
    return f"{interval.low:.3f}–{high}"


def spread(figures: Percentiles | None) -> str:
    """Median and range of seconds in one unit: ``12.1 ms (11.3–14)``; ``–`` where nothing was measured."""
    if figures is None:
        return "–"
    if figures.maximum >= 1e4 * max(figures.p50, 1e-9):
        # One unit for both would be a row of digits.
        return f"{seconds(figures.p50)} ({seconds(figures.minimum)}–{seconds(figures.maximum)})"
    scale, unit = next((scale, unit) for scale, unit in _SCALES if figures.p50 * scale < 1000 or unit == "s")
    middle, low, high = (rate(value * scale) for value in (figures.p50, figures.minimum, figures.maximum))
    return f"{middle} {unit}" if figures.n == 1 else f"{middle} {unit} ({low}–{high})"


def rate_spread(figures: Percentiles | None) -> str:
    """Median and range of rates: ``41.2 (39.8–42.0)``."""
    if figures is None:
        return "–"
    if figures.n == 1:
        return rate(figures.p50)
    return f"{rate(figures.p50)} ({rate(figures.minimum)}–{rate(figures.maximum)})"

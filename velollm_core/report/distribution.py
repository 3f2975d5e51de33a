"""How figures are spread: cumulative curves and histograms, one line for each side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median

from velollm_core.benchmark.percentiles import nearest_rank
from velollm_core.report.chart import Frame, colour, draw, inner_x, inner_y, path
from velollm_core.report.markup import Markup
from velollm_core.report.scale import Scale, bounded, fit, spans_decades
from velollm_core.report.unit import Unit, unit_of_seconds

BINS = 32
SHOWN = 0.99
POINTS = 400
_SHARES = ((0.0, "0"), (0.5, "p50"), (0.9, "p90"), (0.99, "p99"))


def cumulative(name: str, sides: Mapping[str, Sequence[float]]) -> Markup:
    """The share of values (seconds) at or below each: a step at every one; empty where no side has any."""
    known = {side: sorted(bounded(values)) for side, values in sides.items()}
    every = list(chain.from_iterable(known.values()))
    if not every:
        return Markup("")
    unit, log = unit_of_seconds(every), spans_decades(every)
    x = fit([value * unit.factor for value in every], *inner_x(), log=log)
    y = Scale(0.0, 1.0, *inner_y())
    lines = [
        path(_staircase([value * unit.factor for value in values], x, y), f"line {colour(index)}")
        for index, values in enumerate(known.values())
    ]
    # p99 is a figure of a hundred values; below that its line would only suggest one.
    ticks = _SHARES if max(map(len, known.values())) >= 100 else _SHARES[:-1]
    text = f"Cumulative distribution of {name}. {_told(known, unit)}"
    axis = f"{name}, {unit.name}{' (log scale)' if log else ''}"
    return draw(Frame(f"{name}: cumulative distribution", text, x, y, axis, "share of values", ticks), lines)


def histogram(name: str, sides: Mapping[str, Sequence[float]]) -> Markup:
    """The share of values (seconds) in bins of equal width; the last bin holds all above the pooled p99."""
    known = {side: sorted(bounded(values)) for side, values in sides.items()}
    every = sorted(chain.from_iterable(known.values()))
    if not every:
        return Markup("")
    top = nearest_rank(every, SHOWN) * 1.05
    top = top if top > 0 else 1e-6
    unit = unit_of_seconds([top])
    shares = {side: _binned(values, top) for side, values in known.items() if values}
    x = Scale(0.0, top * unit.factor, *inner_x())
    y = fit([100 * share for values in shares.values() for share in values], *inner_y(), zero=True)
    lines = []
    for index, side in enumerate(known):
        if side in shares:
            outline = _outline([100 * share for share in shares[side]], x, y)
            lines.append(path(outline, f"line area {colour(index)}"))
    beyond = sum(value > top for value in every)
    more = f" {beyond} of {len(every)} values lie beyond and are counted in the last bar." if beyond else ""
    text = f"Histogram of {name}. {_told(known, unit)}{more}"
    return draw(Frame(f"{name}: histogram", text, x, y, f"{name}, {unit.name}", "% of values"), lines)


def _told(known: Mapping[str, Sequence[float]], unit: Unit) -> str:
    return " ".join(
        f"{side}: {len(values)} values, median {median(values) * unit.factor:.4g} {unit.name}, "
        f"{values[0] * unit.factor:.4g} to {values[-1] * unit.factor:.4g} {unit.name}."
        for side, values in known.items()
        if values
    )


def _staircase(ordered: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    if not ordered:
        return []
    n = len(ordered)
    # Steps finer than the paper are not drawn.
    every = max(1, n // POINTS)
    kept = [*range(0, n - 1, every), n - 1]
    points, height = [(x.start, y(0)), (x(ordered[0]), y(0))], 0.0
    for rank in kept:
        place = x(ordered[rank])
        points += [(place, y(height)), (place, y((rank + 1) / n))]
        height = (rank + 1) / n
    return [*points, (x.stop, y(1.0))]


def _binned(values: Sequence[float], top: float) -> list[float]:
    counts = [0] * BINS
    for value in values:
        counts[min(int(max(value, 0.0) / top * BINS), BINS - 1)] += 1
    return [count / len(values) for count in counts]


def _outline(shares: Sequence[float], x: Scale, y: Scale) -> list[tuple[float, float]]:
    width = x.high / len(shares)
    points = [(x(0), y(0))]
    for place, share in enumerate(shares):
        points += [(x(place * width), y(share)), (x((place + 1) * width), y(share))]
    return [*points, (x(x.high), y(0))]

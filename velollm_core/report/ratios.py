"""Ratios of two sides: each comparison with its interval, and every pair that stands behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from velollm_core.benchmark.comparison import DELTA, Comparison
from velollm_core.benchmark.pair import Pair, speed
from velollm_core.report.chart import WIDTH, Frame, colour, draw, inner_x, inner_y, label, picture
from velollm_core.report.markup import Markup, element, join
from velollm_core.report.scale import LARGEST, Scale, bounded, fit, tick_text
from velollm_core.views.figures import ratio_interval

ROW = 36.0
EDGE = 14.0
FOOT = 40.0
LABEL = 26


def forest(comparisons: Sequence[tuple[str, Comparison]], first: str, second: str) -> Markup:
    """Ratio and interval of each comparison around 1, with the band that counts as equal; empty without any."""
    if not comparisons:
        return Markup("")
    ends = [end for _, each in comparisons if each.interval for end in (each.interval.low, each.interval.high)]
    values = bounded([0.9, 1.1, *(each.ratio for _, each in comparisons), *ends])
    x = fit([min(max(value, 0.1), 10.0) for value in values], EDGE, WIDTH - EDGE, log=True)
    bottom = ROW * len(comparisons) + 6
    delta = comparisons[0][1].delta
    band = element("rect", x=x(1 - delta), y=0.0, width=x(1 + delta) - x(1 - delta), height=bottom, class_="band")
    rows = [_row(name, each, x, ROW * place) for place, (name, each) in enumerate(comparisons)]
    text = f"Speed of {second} over {first}. " + " ".join(
        f"{name}: {each.ratio:.3f}, interval {ratio_interval(each.interval)}." for name, each in comparisons
    )
    content = [band, *_axis(x, bottom), *rows]
    return picture("Ratios with their intervals", text, WIDTH, bottom + FOOT, content)


def pairs_chart(pairs: Sequence[Pair], first: str, second: str) -> Markup:
    """The ratio of every pair in the order it was measured; squares where ``second`` came first."""
    ratios = [(pair, _ratio(pair, first, second)) for pair in pairs]
    known = [(pair, ratio) for pair, ratio in ratios if ratio is not None]
    if not known:
        return Markup("")
    x = Scale(0.0, len(known) + 1.0, *inner_x(), whole=True)
    y = fit([1 - DELTA, 1 + DELTA, *(ratio for _, ratio in known)], *inner_y(), log=True)
    left, right = inner_x()
    one = element("line", x1=left, x2=right, y1=y(1), y2=y(1), class_="axis")
    dots = [_dot(x(place + 1), y(ratio), pair, ratio, second) for place, (pair, ratio) in enumerate(known)]
    above = sum(ratio > 1 for _, ratio in known)
    text = f"{second} was faster in {above} of {len(known)} pairs."
    frame = Frame("Every pair", text, x, y, "pair, in the order measured", "ratio (log scale)")
    return draw(frame, [one, *dots])


def _row(name: str, each: Comparison, x: Scale, top: float) -> Markup:
    middle = top + 27
    parts = [
        label(_short(name), 2, top + 14, "start", "name"),
        label(f"{each.ratio:.3f} ({ratio_interval(each.interval)})", WIDTH - 2, top + 14, "end"),
    ]
    if each.interval is not None:
        low, high = (x(value) for value in (each.interval.low, each.interval.high))
        parts.append(element("path", d=f"M{low:.2f} {middle}H{high:.2f}", class_="line solid s1"))
        for place, value in ((low, each.interval.low), (high, each.interval.high)):
            if x.low <= value <= x.high:
                parts.append(element("path", d=f"M{place:.2f} {middle - 4}V{middle + 4}", class_="line solid s1"))
    parts.append(element("circle", cx=x(each.ratio), cy=middle, r=4.0, class_="dot s1"))
    return join(parts)


def _axis(x: Scale, bottom: float) -> list[Markup]:
    parts = [element("line", x1=x(1), x2=x(1), y1=0.0, y2=bottom, class_="axis")]
    for value in x.ticks():
        parts.append(element("line", x1=x(value), x2=x(value), y1=bottom - 4, y2=bottom, class_="axis"))
        parts.append(label(tick_text(value), x(value), bottom + 14))
    parts.append(element("line", x1=x.start, x2=x.stop, y1=bottom, y2=bottom, class_="axis"))
    parts.append(label("← slower · ratio of speeds (log scale) · faster →", WIDTH / 2, bottom + 32, class_="name"))
    return parts


def _dot(x: float, y: float, pair: Pair, ratio: float, second: str) -> Markup:
    told = f"pair {pair.index + 1}: {ratio:.3f}, {pair.order[0]} first{', noisy' if pair.noisy else ''}"
    kind = f"dot {colour(1)}{' faint' if pair.noisy else ''}"
    if pair.order[0] == second:
        return element("rect", element("title", told), x=x - 4, y=y - 4, width=8.0, height=8.0, class_=kind)
    return element("circle", element("title", told), cx=x, cy=y, r=4.5, class_=kind)


def _ratio(pair: Pair, first: str, second: str) -> float | None:
    known: Mapping[str, object] = pair.scores
    if first not in known or second not in known:
        return None
    value = pair.log_ratio(first, second, speed)
    return None if value is None else min(math.exp(min(value, 25.0)), LARGEST)


def _short(name: str) -> str:
    return name if len(name) <= LABEL else f"{name[: LABEL - 1]}…"

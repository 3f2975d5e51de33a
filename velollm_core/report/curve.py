"""Throughput against latency, where several loads were measured."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.report.chart import Frame, colour, draw, inner_x, inner_y, label, path
from velollm_core.report.dossier import LoadPoint
from velollm_core.report.markup import Markup, element
from velollm_core.report.scale import bounded, fit, spans_decades
from velollm_core.report.unit import unit_of_seconds
from velollm_core.views.figures import rate, seconds


def throughput_latency(task: str, points: Sequence[LoadPoint]) -> Markup:
    """Median TTFT over the whole system's tokens a second, one curve for each side, its loads named at the points."""
    mine = [point for point in points if point.task == task and len(bounded([point.throughput, point.ttft])) == 2]
    if not mine:
        return Markup("")
    latencies = [point.ttft for point in mine]
    unit, log = unit_of_seconds(latencies), spans_decades(latencies)
    x = fit([point.throughput for point in mine], *inner_x(), zero=True)
    y = fit([value * unit.factor for value in latencies], *inner_y(), zero=not log, log=log)
    content = list[Markup]()
    for index, curve in enumerate(dict.fromkeys(point.curve for point in mine)):
        places = [(x(p.throughput), y(p.ttft * unit.factor), p) for p in mine if p.curve == curve]
        content.append(path([(left, top) for left, top, _ in places], f"line {colour(index)}"))
        for left, top, point in places:
            told = f"{point.load}: {rate(point.throughput)} tokens/s, TTFT {seconds(point.ttft)}"
            content.append(
                element("circle", element("title", told), cx=left, cy=top, r=4.0, class_=f"dot {colour(index)}")
            )
            # A curve that rises leaves room above on the left, and below on the right.
            above = left > inner_x()[0] + 60
            content.append(
                label(point.load, left + (-6 if above else 6), top + (-7 if above else 16), "end" if above else "start")
            )
    text = "; ".join(f"{p.curve}, {p.load}: {rate(p.throughput)} tokens/s, TTFT {seconds(p.ttft)}" for p in mine)
    axis = f"median TTFT, {unit.name}{' (log scale)' if log else ''}"
    return draw(Frame(f"{task}: throughput and latency", f"{text}.", x, y, "tokens/s of all requests", axis), content)

"""Every request of a run on one axis of time."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.benchmark.sample import Sample
from velollm_core.report.chart import colour
from velollm_core.report.dossier import Course
from velollm_core.report.markup import Markup, element
from velollm_core.report.scale import Scale, bounded, tick_text
from velollm_core.views.figures import seconds

MOST = 160
ROW = 9.0
TALLEST = 460.0
FOOT = 34.0


def timeline(course: Course, names: Sequence[str]) -> Markup:
    """A bar for each request: waiting, then prefill (pale), then decode; failures are crossed out.

    Times are drawn in percent of the width, so that the text keeps its size on every screen. Empty without requests.
    """
    ordered = sorted(course.requests, key=lambda each: (each[0].timing.intended, each[0].index))
    shown = ordered[:MOST]
    if not shown:
        return Markup("")
    start = min(bounded([sample.timing.intended for sample, _ in shown]), default=0.0)
    end = max(bounded([sample.timing.ended for sample, _ in shown]), default=start)
    x = Scale(start, end if end > start else start + 1.0, 0.0, 100.0)
    height = min(ROW, TALLEST / len(shown))
    bottom = height * len(shown)
    bars = [
        _bar(sample, names[line], colour(line), x, (height * row, height)) for row, (sample, line) in enumerate(shown)
    ]
    title = f"Requests of run {course.run}"
    text = f"{len(shown)} of {len(ordered)} requests over {seconds(x.high - x.low)}, in the order they were to be sent."
    return element(
        "svg",
        element("title", title),
        element("desc", text),
        *_axis(x, bottom),
        *bars,
        width="100%",
        height=bottom + FOOT,
        role="img",
        aria_label=f"{title}: {text}",
        class_="timeline",
    )


def left_out(course: Course) -> int:
    """How many requests are beyond what the timeline shows."""
    return max(0, len(course.requests) - MOST)


def _bar(sample: Sample, name: str, kind: str, x: Scale, row: tuple[float, float]) -> Markup:
    timing = sample.timing
    end = timing.last if timing.last is not None else timing.ended
    first = timing.first if timing.first is not None else end
    parts = [element("title", _told(sample, name))]
    if timing.sent > timing.intended:
        parts.append(_piece(x, timing.intended, timing.sent, row, "wait"))
    parts.append(_piece(x, timing.sent, first, row, f"prefill {kind}"))
    parts.append(_piece(x, first, end, row, f"decode {kind}"))
    if timing.failure:
        parts.append(_piece(x, timing.sent, timing.ended, row, "failed"))
    return element("g", *parts)


def _piece(x: Scale, start: float, end: float, row: tuple[float, float], kind: str) -> Markup:
    low, high = (x(value) for value in bounded([start, end]))
    # The shortest request still leaves a mark.
    width = max(high - low, 0.15)
    top, height = row
    gap = 0.12 * height
    return element("rect", x=f"{low:.3f}%", width=f"{width:.3f}%", y=top + gap, height=height - 2 * gap, class_=kind)


def _told(sample: Sample, name: str) -> str:
    timing = sample.timing
    what = f"{sample.task} {sample.index + 1}, {name}, sent at {seconds(timing.sent)}"
    if timing.failure:
        return f"{what}: {timing.failure.kind}, {timing.failure.message}"
    first = None if timing.first is None else timing.first - timing.intended
    whole = None if timing.last is None else timing.last - timing.intended
    return f"{what}: TTFT {seconds(first)}, E2E {seconds(whole)}"


def _axis(x: Scale, bottom: float) -> list[Markup]:
    parts = [element("line", x1="0%", x2="100%", y1=bottom, y2=bottom, class_="axis")]
    for value in x.ticks():
        place = x(value)
        anchor = "start" if place < 4 else "end" if place > 96 else "middle"
        parts.append(element("line", x1=f"{place:.3f}%", x2=f"{place:.3f}%", y1=0.0, y2=bottom, class_="grid"))
        parts.append(element("text", tick_text(value), x=f"{place:.3f}%", y=bottom + 14, text_anchor=anchor))
    name = element("text", "seconds since the run began", x="50%", y=bottom + 30, text_anchor="middle", class_="name")
    return [*parts, name]

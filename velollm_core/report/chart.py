"""A chart's frame: axes, grid and labels around whatever is drawn in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from attrs import frozen

from velollm_core.report.markup import Markup, element, number
from velollm_core.report.scale import Scale, tick_text

WIDTH = 340.0
HEIGHT = 230.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 10.0, 40.0
COLOURS = 6
# The width of a figure's letters.
LETTER = 7.5


@frozen
class Frame:
    """``title`` and ``text`` are read to those who cannot see; the labels carry the units."""

    title: str
    text: str
    x: Scale
    y: Scale
    x_label: str
    y_label: str
    y_ticks: tuple[tuple[float, str], ...] | None = None


def draw(frame: Frame, content: Sequence[Markup]) -> Markup:
    """The chart as one SVG element, as wide as its column."""
    lines, labels = _axes(frame)
    return picture(frame.title, frame.text, WIDTH, HEIGHT, [*lines, *content, *labels])


def picture(title: str, text: str, width: float, height: float, content: Sequence[Markup]) -> Markup:
    """An SVG of its own, with a title and a description for those who cannot see it."""
    name = hashlib.sha256(f"{title}/{text}/{''.join(content)}".encode(errors="replace")).hexdigest()[:10]
    return element(
        "svg",
        element("title", title, id=f"t{name}"),
        element("desc", text, id=f"d{name}"),
        *content,
        viewBox=f"0 0 {number(width)} {number(height)}",
        role="img",
        aria_labelledby=f"t{name} d{name}",
        class_="chart",
    )


def inner_x() -> tuple[float, float]:
    """Where the horizontal axis begins and ends."""
    return LEFT, WIDTH - RIGHT


def inner_y() -> tuple[float, float]:
    """Where the vertical axis begins, below, and ends, above."""
    return HEIGHT - BOTTOM, TOP


def colour(index: int) -> str:
    """The class of the line number ``index``; the style sheet gives each its colour and its dashes."""
    return f"s{index % COLOURS}"


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through ``points``; nothing through none."""
    if not points:
        return Markup("")
    steps = " ".join(
        f"{'L' if index else 'M'}{number(round(x, 2))} {number(round(y, 2))}" for index, (x, y) in enumerate(points)
    )
    return element("path", d=steps, class_=class_)


def label(text: str, x: float, y: float, anchor: str = "middle", class_: str | None = None) -> Markup:
    """Text whose ``anchor`` stands at the place."""
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def _axes(frame: Frame) -> tuple[list[Markup], list[Markup]]:
    (left, right), (below, above) = inner_x(), inner_y()
    lines, labels = list[Markup](), list[Markup]()
    for value in frame.x.ticks():
        place = frame.x(value)
        lines.append(element("line", x1=place, x2=place, y1=below, y2=above, class_="grid"))
        text = tick_text(value)
        # The last one may stand at the very edge.
        beyond = place + LETTER * len(text) / 2 > WIDTH
        labels.append(label(text, WIDTH if beyond else place, below + 14, "end" if beyond else "middle"))
    rows = frame.y_ticks if frame.y_ticks is not None else [(value, tick_text(value)) for value in frame.y.ticks()]
    for value, text in rows:
        place = frame.y(value)
        lines.append(element("line", x1=left, x2=right, y1=place, y2=place, class_="grid"))
        labels.append(label(text, left - 5, place + 4, "end"))
    lines.append(element("path", d=f"M{left} {above}V{below}H{right}", class_="axis"))
    labels.append(label(frame.x_label, (left + right) / 2, HEIGHT - 6, class_="name"))
    turned = f"translate(10 {number((below + above) / 2)}) rotate(-90)"
    labels.append(element("text", frame.y_label, transform=turned, text_anchor="middle", class_="name"))
    return lines, labels

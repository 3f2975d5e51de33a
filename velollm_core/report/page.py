"""The report as one HTML page: no script, no request to anywhere, readable on paper and on a telephone."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from importlib.resources import files
from itertools import chain
from string import Template

from velollm_core import __version__
from velollm_core.benchmark.metrics import e2e, gaps, tpot, ttft
from velollm_core.benchmark.timing import RequestTiming
from velollm_core.report.chart import colour
from velollm_core.report.curve import throughput_latency
from velollm_core.report.distribution import cumulative, histogram
from velollm_core.report.dossier import Course, Dossier
from velollm_core.report.markup import Markup, element, escape, join
from velollm_core.report.ratios import forest, pairs_chart
from velollm_core.report.tables import (
    Table,
    choices_table,
    comparisons_table,
    facts_table,
    figures_table,
    further_table,
    noise_table,
    raw_table,
    requests_table,
)
from velollm_core.report.timeline import left_out, timeline

LONG = 20
_CURVES: tuple[tuple[str, Callable[[RequestTiming], float | None]], ...] = (
    ("TTFT", ttft),
    ("TPOT", tpot),
    ("E2E", e2e),
)
_NOTE = (
    "Percentiles by nearest rank, p90 from 10 values, p99 from 100; the interval is of the "
    "median, as if requests were independent. A comparison rests on pairs of blocks, not on these intervals."
)


def to_html(dossier: Dossier) -> str:
    """The whole page."""
    sections = list(_sections(dossier))
    here = files("velollm_core.report")
    links = [element("li", element("a", title, href=f"#{name}")) for name, title, _ in sections]
    samples = f"Samples: {', '.join(dossier.files)}. " if dossier.files else ""
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        version=__version__,
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        title=escape(dossier.title),
        standing=dossier.standing,
        headline=escape(dossier.headline),
        sentences=join([element("p", sentence) for sentence in dossier.sentences], "\n"),
        contents=element("nav", element("ul", *links), aria_label="Contents"),
        sections=join([_section(*section) for section in sections], "\n"),
        footer=escape(f"{samples}Written by VeloLLM {__version__}."),
    )


def table_markup(table: Table) -> Markup:
    """A table that scrolls by itself where the screen is narrower than it."""

    def number(place: int) -> str | None:
        return "number" if place in table.numbers else None

    head = [element("th", name, scope="col", class_=number(place)) for place, name in enumerate(table.columns)]
    rows = [
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell, class_=number(place)) for place, cell in enumerate(row[1:], 1)),
        )
        for row in table.rows
    ]
    inner = element(
        "table",
        element("caption", table.caption),
        element("thead", element("tr", *head)),
        element("tbody", join(rows, "\n")),
    )
    kind = "scroll long" if len(rows) > LONG else "scroll"
    return element("div", inner, class_=kind, tabindex="0", role="region", aria_label=table.caption)


def legend(names: Sequence[str], only: Container[int] | None = None) -> Markup:
    """Which line is whose, of those whose numbers are in ``only``; nothing where there is only one."""
    if len(names) < 2:
        return Markup("")
    items = [
        element(
            "li",
            element(
                "svg",
                element("path", d="M0 5H28", class_=f"line {colour(index)}"),
                viewBox="0 0 28 10",
                aria_hidden="true",
            ),
            element("span", name),
        )
        for index, name in enumerate(names)
        if only is None or index in only
    ]
    return element("ul", *items, class_="legend")


def _sections(dossier: Dossier) -> Iterator[tuple[str, str, list[Markup]]]:
    if (compared := comparisons_table(dossier)) is not None:
        yield "comparison", "Comparison", [_ratio_charts(dossier), table_markup(compared)]
    if (settings := choices_table(dossier)) is not None:
        yield "settings", settings.caption, [table_markup(settings)]
    tasks = list(chain.from_iterable(_task(dossier, task) for task in dossier.tasks))
    yield "figures", "Figures", [*tasks, element("p", _NOTE)]
    if dossier.points:
        curves = [throughput_latency(task, dossier.points) for task in dossier.tasks]
        names = list(dict.fromkeys(point.curve for point in dossier.points))
        captions = [f"{task}: median TTFT over throughput" for task in dossier.tasks]
        yield "load", "Throughput and latency", [legend(names), _charts(zip(curves, captions, strict=True))]
    yield "timeline", "Every request in time", [*_timelines(dossier), table_markup(requests_table(dossier))]
    noise = noise_table(dossier)
    environment = [table_markup(facts_table(dossier)), *([table_markup(noise)] if noise else [])]
    yield "environment", "Environment and noise", environment
    raw = element("details", element("summary", "Show every request"), table_markup(raw_table(dossier)))
    yield "raw", "Raw values", [raw]


def _section(name: str, title: str, content: Sequence[Markup]) -> Markup:
    return element("section", element("h2", title, id=f"{name}"), join(list(content), "\n"), aria_labelledby=name)


def _task(dossier: Dossier, task: str) -> Iterator[Markup]:
    yield element("h3", task)
    yield legend(dossier.names)
    yield _charts(_task_charts(dossier, task))
    yield table_markup(figures_table(dossier, task))
    if (further := further_table(dossier, task)) is not None:
        yield element("details", element("summary", f"Further figures of {task}"), table_markup(further))


def _task_charts(dossier: Dossier, task: str) -> Iterator[tuple[Markup, str]]:
    timings = {line.name: [s.timing for s in line.steady if s.task == task and s.counts] for line in dossier.lines}
    whole = {
        line.name: [s.timing for s in line.steady if s.task == task and s.counts and not s.short]
        for line in dossier.lines
    }
    for name, of in _CURVES:
        chosen = whole if of is e2e else timings
        values = {side: [v for timing in each if (v := of(timing)) is not None] for side, each in chosen.items()}
        yield cumulative(name, values), f"{name}: share of requests at or below"
    pooled = {side: [gap for timing in each for gap in gaps(timing)] for side, each in timings.items()}
    yield histogram("ITL", pooled), "ITL: gaps between chunks; the last bar holds all beyond the p99"


def _charts(charts: Iterator[tuple[Markup, str]] | zip[tuple[Markup, str]]) -> Markup:
    figures = [element("figure", chart, element("figcaption", caption)) for chart, caption in charts if chart]
    return element("div", join(figures, "\n"), class_="charts")


def _ratio_charts(dossier: Dossier) -> Markup:
    first, second = (dossier.columns or dossier.names)[:2] if len(dossier.names) > 1 else ("first", "second")
    band = f"The band is ±{dossier.comparisons[0][1].delta:.0%}, within which two sides count as equal."
    charts = [
        (forest(dossier.comparisons, first, second), f"Speed of {second} over {first}, with 95% intervals. {band}")
    ]
    pairs = f"Every pair of blocks; squares where {second} was measured first, pale where the machine was noisy"
    charts.append((pairs_chart(dossier.pairs, first, second), pairs))
    return _charts(iter(charts))


def _timelines(dossier: Dossier) -> Iterator[Markup]:
    yield legend(dossier.names, {line for course in dossier.courses for _, line in course.requests})
    for course in dossier.courses:
        chart = timeline(course, dossier.names)
        if chart:
            yield element("figure", chart, element("figcaption", _timeline_caption(course)))


def _timeline_caption(course: Course) -> str:
    more = f" {left_out(course)} later requests are not drawn." if left_out(course) else ""
    return f"Run {course.run}: pale until the first token, full while decoding, grey before sending, red failed.{more}"

"""Scales, paths and charts: any figures give a picture that is valid XML and holds no NaN."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.benchmark.comparison import compare_pairs
from velollm_core.benchmark.pair import Pair, Score
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.timing import Failure, RequestTiming
from velollm_core.report.chart import WIDTH, Frame, draw, inner_x, inner_y
from velollm_core.report.curve import throughput_latency
from velollm_core.report.distribution import cumulative, histogram
from velollm_core.report.dossier import Course, LoadPoint
from velollm_core.report.markup import Markup, element, escape, number
from velollm_core.report.ratios import forest, pairs_chart
from velollm_core.report.scale import Scale, bounded, fit, tick_text
from velollm_core.report.timeline import MOST, left_out, timeline

floats = st.floats(allow_nan=True, allow_infinity=True)
texts = st.text(max_size=30)
several = settings(max_examples=60, deadline=None)


def valid(chart: Markup) -> ET.Element | None:
    """The chart parsed, or None for an empty one; fails where a figure in it is none."""
    if not chart:
        return None
    root = ET.fromstring(chart)
    for each in root.iter():
        for name, value in each.attrib.items():
            if name in {"d", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height", "viewBox"}:
                assert "nan" not in value
                assert "inf" not in value
    assert root.find("title") is not None
    assert root.find("desc") is not None
    return root


@given(st.lists(floats), st.booleans(), st.booleans(), floats)
@several
def test_a_scale_keeps_to_its_paper(values: list[float], zero: bool, log: bool, other: float) -> None:
    scale = fit(values, 10.0, 110.0, zero=zero, log=log)
    for value in bounded([*values, other]):
        assert 10 - 1e-6 <= scale(value) <= 110 + 1e-6
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 30
    assert ticks == sorted(ticks)
    assert all(math.isfinite(tick) for tick in ticks)


def test_ticks_are_round() -> None:
    assert [tick_text(tick) for tick in Scale(0, 10, 0, 1).ticks()] == ["0", "2", "4", "6", "8", "10"]
    assert [tick_text(tick) for tick in Scale(1, 1000, 0, 1, log=True).ticks()] == [
        *("1", "2", "5", "10", "20", "50", "100", "200", "500", "1000"),
    ]


def test_a_scale_goes_both_ways() -> None:
    scale = Scale(0, 4, 200, 100)
    assert (scale(0), scale(1), scale(4), scale(9)) == (200, 175, 100, 100)
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)


@given(st.dictionaries(texts, st.lists(floats, max_size=30), max_size=4), texts)
@several
def test_any_distribution_is_drawn(sides: dict[str, list[float]], name: str) -> None:
    for chart in (cumulative, histogram):
        root = valid(chart(name, sides))
        assert (root is None) == (not any(bounded(values) for values in sides.values()))


def test_a_cumulative_curve_steps_at_each_value() -> None:
    root = valid(cumulative("TTFT", {"one": [1.0, 3.0]}))
    assert root is not None
    line = next(each for each in root.iter() if each.get("class") == "line s0")
    heights = [float(step.split()[1]) for step in str(line.get("d")).replace("L", "M").split("M")[1:]]
    assert heights == [190, 190, 190, 100, 100, 10, 10]
    assert "median 2 s, 1 to 3 s" in str(root.findtext("desc"))


def test_a_histogram_says_what_lies_beyond() -> None:
    root = valid(histogram("ITL", {"one": [0.01] * 199 + [5.0]}))
    assert root is not None
    assert "1 of 200 values lie beyond" in str(root.findtext("desc"))


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=12), texts, texts)
@several
def test_any_ratio_is_drawn(ratios: list[float], first: str, second: str) -> None:
    assert valid(forest([(first, compare_pairs("speed", ratios))], first, second)) is not None


@given(st.lists(st.tuples(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9), st.booleans()), min_size=1, max_size=9))
@several
def test_any_pair_is_drawn(times: list[tuple[float, float, bool]]) -> None:
    pairs = [
        Pair(i, ("a", "b"), {"a": Score(a, 1, 1, 1, 1), "b": Score(b, 1, 1, 1, 1)}, noisy)
        for i, (a, b, noisy) in enumerate(times)
    ]
    root = valid(pairs_chart(pairs, "a", "b"))
    assert root is not None
    assert sum(each.tag == "circle" for each in root.iter()) == len(pairs)


def test_no_pairs_no_picture() -> None:
    assert forest([], "a", "b") == pairs_chart([], "a", "b") == Markup("")


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    finite = st.floats(0, 1e300)
    arrivals = tuple(sorted(draw(st.lists(finite, max_size=5))))
    failure = draw(st.none() | st.builds(Failure, texts, texts))
    timing = RequestTiming(draw(finite), draw(finite), draw(finite), arrivals, failure=failure)
    return Sample(draw(texts), draw(st.integers(0, 9)), 8, timing)


@given(st.lists(samples(), max_size=8), texts)
@several
def test_any_run_has_a_timeline(requests: list[Sample], name: str) -> None:
    course = Course("run", tuple((sample, 0) for sample in requests), ())
    assert (valid(timeline(course, [name])) is None) == (not requests)


def test_a_timeline_says_what_it_leaves_out() -> None:
    requests = tuple((Sample("t", i, 1, RequestTiming(i, i, i + 1, (i + 0.5,))), 0) for i in range(MOST + 7))
    course = Course("run", requests, ())
    assert left_out(course) == 7
    assert f"{MOST} of {MOST + 7} requests" in timeline(course, ["one"])


@given(st.lists(st.builds(LoadPoint, texts, st.just("t"), texts, floats, floats, floats, floats), max_size=6))
@several
def test_any_load_is_drawn(points: list[LoadPoint]) -> None:
    valid(throughput_latency("t", points))


@given(st.text())
@several
def test_all_text_is_escaped(text: str) -> None:
    root = ET.fromstring(element("p", text, title=text))
    assert len(root) == 0
    assert escape(escape(text)) == escape(text)


def test_numbers_are_short() -> None:
    assert [number(value) for value in (0.0, 1.0, 1.50, 100.0, 0.126)] == ["0", "1", "1.5", "100", "0.13"]


def test_counts_have_whole_ticks() -> None:
    assert Scale(0.0, 3.0, 0.0, 100.0, whole=True).ticks() == [0.0, 1.0, 2.0, 3.0]
    assert 0.5 in Scale(0.0, 3.0, 0.0, 100.0).ticks()


def test_a_figure_at_the_edge_is_not_cut_off() -> None:
    """A tick at the very end of the axis, where half of its figure would lie beyond the paper."""
    x, y = Scale(0.0, 1000.0, *inner_x()), Scale(0.0, 1.0, *inner_y())
    root = valid(draw(Frame("t", "d", x, y, "x", "y"), []))
    assert root is not None
    ticks = {each.text: each.attrib for each in root.iter("text")}
    assert (ticks["1000"]["text-anchor"], ticks["800"]["text-anchor"]) == ("end", "middle")
    assert float(ticks["1000"]["x"]) <= WIDTH

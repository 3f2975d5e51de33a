"""Percentiles by nearest rank."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.benchmark.percentiles import median_interval, nearest_rank, summarise


@pytest.mark.parametrize(("quantile", "expected"), [(0.05, 15), (0.3, 20), (0.4, 20), (0.5, 35), (1.0, 50)])
def test_nearest_rank(quantile: float, expected: float) -> None:
    assert nearest_rank([15, 20, 35, 40, 50], quantile) == expected


def test_floats_do_not_move_the_rank() -> None:
    # 0.29 * 100 is 28.999…, 0.57 * 100 is 56.999…
    values = [float(value) for value in range(1, 101)]
    assert (nearest_rank(values, 0.29), nearest_rank(values, 0.57)) == (29, 57)


def test_high_percentiles_want_many_values() -> None:
    nine, ten, many = (summarise(range(count)) for count in (9, 10, 100))
    assert nine is not None
    assert ten is not None
    assert many is not None
    assert (nine.p90, ten.p90, ten.p99, many.p99) == (None, 8, None, 98)


def test_nothing_has_no_percentiles() -> None:
    assert summarise([]) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300))
def test_figures_are_values_that_occurred(values: list[float]) -> None:
    figures = summarise(values)
    assert figures is not None
    assert {figures.minimum, figures.p50, figures.maximum} <= set(values)
    assert figures.minimum <= figures.p50 <= figures.maximum
    if figures.p50_interval:
        assert figures.p50_interval.low <= figures.p50 <= figures.p50_interval.high


@pytest.mark.parametrize("count", [6, 20, 60, 250])
def test_median_interval_covers(count: int) -> None:
    rng = random.Random(count)
    hits = 0
    for _ in range(400):
        interval = median_interval(sorted(rng.expovariate(1) for _ in range(count)))
        assert interval is not None
        hits += interval.low <= 0.693147 <= interval.high
    assert hits >= 400 * 0.92


def test_five_values_cannot_hold_a_median() -> None:
    assert median_interval([1, 2, 3, 4, 5]) is None

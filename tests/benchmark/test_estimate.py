"""Intervals and the numbers of pairs that would do."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.benchmark.estimate import count_needed, detectable, estimate_centre, estimate_difference


def test_one_value_has_no_interval() -> None:
    estimate = estimate_centre([0.3])
    assert (estimate.interval, estimate.spread, estimate.method) == (None, None, "none")


def test_below_six_it_is_students_t() -> None:
    estimate = estimate_centre([0.1, 0.2, 0.3, 0.4])
    assert estimate.method == "student_t"
    assert estimate.interval is not None
    half = 3.18244630528 * (1 / 60) ** 0.5 / 2
    assert estimate.interval.low == pytest.approx(0.25 - half)
    assert estimate.interval.high == pytest.approx(0.25 + half)


def test_six_values_give_their_range() -> None:
    """With six values 2 of 64 sign patterns may be cut off: the interval runs from the smallest to the largest."""
    values = [0.3, -0.1, 0.2, 0.5, 0.1, 0.4]
    estimate = estimate_centre(values)
    assert estimate.method == "sign_flip"
    assert estimate.interval is not None
    assert (estimate.interval.low, estimate.interval.high) == (-0.1, 0.5)


# Critical values of Wilcoxon's signed-rank statistic, two-sided 5% (Conover 1999, table A12): one less than the rank.
@pytest.mark.parametrize(("count", "critical"), [(7, 2), (8, 3), (10, 8), (12, 13), (15, 25), (20, 52), (25, 89)])
def test_interval_is_the_inverted_signed_rank_test(count: int, critical: int) -> None:
    values = [2.0**place for place in range(count)]
    averages = sorted((one + other) / 2 for place, one in enumerate(values) for other in values[place:])
    interval = estimate_centre(values).interval
    assert interval is not None
    assert (interval.low, interval.high) == (averages[critical], averages[-1 - critical])


def test_one_wild_value_moves_it_little() -> None:
    calm = [0.1, 0.11, 0.09, 0.1, 0.12, 0.1, 0.08, 0.1, 0.11]
    wild = estimate_centre([*calm, 50.0])
    assert wild.value == pytest.approx(0.1, abs=0.02)
    assert wild.interval is not None
    assert wild.interval.low > 0.08


def test_spread_is_that_of_normal_values() -> None:
    assert estimate_centre([1.0]).spread is None
    few = estimate_centre([0.1, 0.2, 0.3, 0.4])
    assert few.spread == pytest.approx(0.129, abs=1e-3)
    rng = random.Random(2)
    many = estimate_centre([rng.gauss(0, 0.05) for _ in range(300)])
    assert many.spread == pytest.approx(0.05, rel=0.15)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=16), st.floats(-2, 2))
def test_interval_holds_the_centre_and_moves_with_the_values(values: list[float], shift: float) -> None:
    one, other = estimate_centre(values), estimate_centre([value + shift for value in values])
    assert one.interval is not None
    assert other.interval is not None
    assert one.interval.low - 1e-9 <= one.value <= one.interval.high + 1e-9
    assert other.interval.low == pytest.approx(one.interval.low + shift, abs=1e-6)


def test_same_samples_same_interval() -> None:
    values = [random.Random(7).gauss(0, 1) for _ in range(20)]
    assert estimate_centre(values) == estimate_centre(list(values))


@pytest.mark.parametrize("count", [3, 6, 9])
def test_coverage(count: int) -> None:
    """The true mean lies inside in about 95 of 100 experiments, for normal and for long-tailed errors."""
    rng = random.Random(count)
    for tail in (1.0, 0.2):
        hits = 0
        for _ in range(400):
            interval = estimate_centre([rng.gauss(0, 1) / rng.uniform(tail, 1) for _ in range(count)]).interval
            assert interval is not None
            hits += interval.low <= 0 <= interval.high
        assert hits >= 400 * 0.92


def test_welch_difference() -> None:
    estimate = estimate_difference([([1.0, 1.1, 0.9, 1.0], [1.5, 1.6, 1.4, 1.5])])
    assert estimate.value == pytest.approx(0.5)
    assert estimate.interval is not None
    # By hand: variances 1/150 of four values each, 6 degrees of freedom, t = 2.4469.
    half = 2.4469 * math.sqrt(2 / 150 / 4)
    assert estimate.interval.low == pytest.approx(0.5 - half, abs=1e-4)
    assert estimate.interval.high == pytest.approx(0.5 + half, abs=1e-4)


def test_known_drift_widens_the_difference() -> None:
    plain = estimate_difference([([1.0, 1.1], [1.5, 1.6])]).interval
    wide = estimate_difference([([1.0, 1.1], [1.5, 1.6])], extra=0.2).interval
    assert plain is not None
    assert wide is not None
    assert wide.low == pytest.approx(plain.low - 0.2)


def test_strata_weigh_the_same() -> None:
    """A task that takes ten times as long says no more about the ratio than a short one."""
    short, long = ([0.0, 0.1], [0.5, 0.6]), ([7.0, 7.1, 7.0], [7.1, 7.2, 7.1])
    both = estimate_difference([short, long])
    assert both.value == pytest.approx((0.5 + 0.1) / 2)
    assert both.count == 2
    assert estimate_difference([([1.0], [2.0])]).interval is None


def test_groups_without_spread() -> None:
    estimate = estimate_difference([([1.0, 1.0], [2.0, 2.0])])
    assert estimate.interval is not None
    assert estimate.interval.low == estimate.interval.high == 1.0


def test_about_a_hundred_pairs_show_two_percent_at_five_percent_noise() -> None:
    assert count_needed(0.05 * math.sqrt(2), math.log(1.02)) == pytest.approx(100, abs=5)


def test_count_needed_is_the_first_that_detects() -> None:
    needed = count_needed(0.05, 0.03)
    assert needed is not None
    assert detectable(0.05, needed) <= 0.03 < detectable(0.05, needed - 1)


def test_hopeless_counts_are_none() -> None:
    assert count_needed(10.0, 0.001) is None
    assert count_needed(0.0, 0.02) == 2

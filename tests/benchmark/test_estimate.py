"""Intervals and the numbers of pairs that would do."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.benchmark.estimate import count_needed, detectable, estimate_difference, estimate_mean


def test_one_value_has_no_interval() -> None:
    estimate = estimate_mean([0.3])
    assert (estimate.interval, estimate.spread, estimate.method) == (None, None, "none")


def test_below_six_it_is_students_t() -> None:
    estimate = estimate_mean([0.1, 0.2, 0.3, 0.4])
    assert estimate.method == "student_t"
    assert estimate.interval is not None
    half = 3.18244630528 * (1 / 60) ** 0.5 / 2
    assert estimate.interval.low == pytest.approx(0.25 - half)
    assert estimate.interval.high == pytest.approx(0.25 + half)


def test_six_values_give_their_range() -> None:
    """With six values 2 of 64 sign patterns may be cut off: the interval runs from the smallest to the largest."""
    values = [0.3, -0.1, 0.2, 0.5, 0.1, 0.4]
    estimate = estimate_mean(values)
    assert estimate.method == "sign_flip"
    assert estimate.interval is not None
    assert (estimate.interval.low, estimate.interval.high) == (-0.1, 0.5)


@pytest.mark.parametrize("count", [7, 12, 13, 30])
def test_interval_is_the_inverted_sign_flip_test(count: int) -> None:
    """Means outside the interval are refused by a sign-flip test at 5%, means well inside are not."""
    rng = random.Random(count)
    values = [rng.gauss(0.5, 1) for _ in range(count)]
    interval = estimate_mean(values).interval
    assert interval is not None
    width = interval.high - interval.low
    assert _sign_flip_p(values, interval.low - 0.1 * width) < 0.06
    assert _sign_flip_p(values, interval.high + 0.1 * width) < 0.06
    assert _sign_flip_p(values, interval.low + 0.1 * width) > 0.05


def _sign_flip_p(values: list[float], mean: float) -> float:
    rng = random.Random(1)
    shifted = [value - mean for value in values]
    observed = abs(sum(shifted))
    flips = [abs(sum(value * rng.choice((-1, 1)) for value in shifted)) for _ in range(4000)]
    return sum(flip >= observed for flip in flips) / len(flips)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=16), st.floats(-2, 2))
def test_interval_holds_the_mean_and_moves_with_the_values(values: list[float], shift: float) -> None:
    one, other = estimate_mean(values), estimate_mean([value + shift for value in values])
    assert one.interval is not None
    assert other.interval is not None
    assert one.interval.low - 1e-9 <= fmean(values) <= one.interval.high + 1e-9
    assert other.interval.low == pytest.approx(one.interval.low + shift, abs=1e-6)


def test_same_samples_same_interval() -> None:
    values = [random.Random(7).gauss(0, 1) for _ in range(20)]
    assert estimate_mean(values) == estimate_mean(list(values))


@pytest.mark.parametrize("count", [3, 6, 9])
def test_coverage(count: int) -> None:
    """The true mean lies inside in about 95 of 100 experiments, for normal and for long-tailed errors."""
    rng = random.Random(count)
    for tail in (1.0, 0.2):
        hits = 0
        for _ in range(400):
            interval = estimate_mean([rng.gauss(0, 1) / rng.uniform(tail, 1) for _ in range(count)]).interval
            assert interval is not None
            hits += interval.low <= 0 <= interval.high
        assert hits >= 400 * 0.92


def test_welch_difference() -> None:
    estimate = estimate_difference([1.0, 1.1, 0.9, 1.0], [1.5, 1.6, 1.4, 1.5])
    assert estimate.value == pytest.approx(0.5)
    assert estimate.interval is not None
    assert 0.3 < estimate.interval.low < 0.5 < estimate.interval.high < 0.7


def test_known_drift_widens_the_difference() -> None:
    plain = estimate_difference([1.0, 1.1], [1.5, 1.6]).interval
    wide = estimate_difference([1.0, 1.1], [1.5, 1.6], extra=0.2).interval
    assert plain is not None
    assert wide is not None
    assert wide.low == pytest.approx(plain.low - 0.2)


def test_groups_without_spread() -> None:
    estimate = estimate_difference([1.0, 1.0], [2.0, 2.0])
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

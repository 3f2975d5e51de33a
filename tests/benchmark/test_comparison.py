"""The verdict's rule, and what stands beside it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.benchmark.comparison import compare_pairs, compare_strata, decide
from velollm_core.figures import Interval


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.985, 1.015, "equivalent"),
        (1.001, 1.019, "equivalent"),
        (0.98, 1.02, "equivalent"),
        (1.001, 1.05, "faster"),
        (0.90, 0.999, "slower"),
        (0.95, 1.30, "not_enough_evidence"),
        (1.0, 1.05, "not_enough_evidence"),
    ],
)
def test_rule(low: float, high: float, verdict: str) -> None:
    assert decide(Interval(low, high)) == verdict


def test_without_interval_there_is_no_evidence() -> None:
    assert decide(None) == "not_enough_evidence"


@given(st.floats(0.5, 2), st.floats(0, 0.5))
def test_swapping_the_two_swaps_the_verdict(low: float, width: float) -> None:
    opposite = {"faster": "slower", "slower": "faster"}
    forward = decide(Interval(low, low + width))
    backward = decide(Interval(1 / (low + width), 1 / low))
    if "equivalent" not in (forward, backward):
        assert backward == opposite.get(forward, forward)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.9801, 1.0199, "equivalent"),
        (1.001, 1.0199, "equivalent"),
        (1.001, 1.0201, "faster"),
        (0.9799, 1.0199, "not_enough_evidence"),
        (0.9799, 0.999, "slower"),
        (0.999, 1.0201, "not_enough_evidence"),
    ],
)
def test_the_margin_is_two_percent(low: float, high: float, verdict: str) -> None:
    assert decide(Interval(low, high)) == verdict
    assert compare_pairs("speed", [0.0, 0.0]).delta == 0.02


def test_accepted_wants_more_than_faster() -> None:
    slight = compare_pairs("speed", [0.010, 0.012, 0.030, 0.045, 0.040, 0.050])
    clear = compare_pairs("speed", [0.20, 0.22, 0.21, 0.19, 0.20, 0.22])
    assert (slight.verdict, slight.accepted) == ("faster", False)
    assert (clear.verdict, clear.accepted) == ("faster", True)
    assert clear.ratio == pytest.approx(math.exp(0.205), rel=1e-3)


def test_noisy_pairs_say_how_many_would_do() -> None:
    comparison = compare_pairs("speed", [0.1, -0.1, 0.05, -0.08, 0.02])
    assert comparison.verdict == "not_enough_evidence"
    assert comparison.minimum_detectable_effect is not None
    assert comparison.minimum_detectable_effect > 0.05
    assert comparison.pairs_needed is not None
    assert comparison.pairs_needed > 50


def test_one_pair_says_nothing() -> None:
    comparison = compare_pairs("speed", [0.5])
    assert comparison.verdict == "not_enough_evidence"
    assert comparison.interval is None
    assert comparison.pairs_needed is None


def test_wild_values_stay_finite() -> None:
    comparison = compare_pairs("speed", [0.0, 500.0])
    assert comparison.interval is not None
    assert math.isfinite(comparison.interval.high)


def test_groups_and_their_drift() -> None:
    strata = [([0.0, 0.01, -0.01], [0.06, 0.07, 0.05])]
    assert compare_strata("speed", strata).verdict == "faster"
    drifted = compare_strata("speed", strata, extra=0.1)
    assert (drifted.verdict, drifted.pairs_needed) == ("not_enough_evidence", None)
    assert compare_strata("speed", strata).pairs_needed is not None

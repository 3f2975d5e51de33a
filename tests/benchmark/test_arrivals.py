"""When requests are meant to come, and how long they are."""

from __future__ import annotations

import random
from itertools import pairwise
from statistics import fmean, pstdev
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.benchmark.arrivals import PATTERNS, Arrivals, arrival_times
from velollm_core.benchmark.lengths import parse_lengths
from velollm_core.errors import VeloError


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def test_constant() -> None:
    assert arrival_times(Arrivals("constant", 4.0), 1.0) == [0.0, 0.25, 0.5, 0.75]


def test_bursts() -> None:
    assert arrival_times(Arrivals("burst", 2.0, burst=3), 3.0) == [0.0] * 3 + [1.5] * 3


def test_replay_keeps_its_times() -> None:
    assert arrival_times(Arrivals("replay", times=(3.0, 0.0, 1.0, 99.0)), 10.0) == [0.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("pattern", "burstiness", "variation"),
    [("poisson", 1.0, 1.0), ("gamma", 1.0, 1.0), ("gamma", 0.25, 2.0), ("gamma", 4.0, 0.5)],
)
def test_rate_and_burstiness(pattern: Any, burstiness: float, variation: float) -> None:
    times = arrival_times(Arrivals(pattern, 20.0, burstiness=burstiness), 200.0)
    assert len(times) == pytest.approx(4000, rel=0.1)
    between = gaps(times)
    assert pstdev(between) / fmean(between) == pytest.approx(variation, rel=0.15)


@pytest.mark.parametrize("pattern", [pattern for pattern in PATTERNS if pattern != "replay"])
def test_only_as_many_are_made_as_are_asked_for(pattern: Any) -> None:
    """A trillion seconds of arrivals would never end."""
    arrivals = Arrivals(pattern, 1000.0, burst=3, end_rate=2000.0)
    assert len(arrival_times(arrivals, 1e12, most=7)) == 7
    assert arrival_times(arrivals, 2.0, most=7) == arrival_times(arrivals, 2.0)[:7]


def test_a_ramp_rises() -> None:
    times = arrival_times(Arrivals("ramp", 1.0, end_rate=9.0), 200.0)
    early, late = sum(time < 50 for time in times), sum(time >= 150 for time in times)
    assert len(times) == pytest.approx(1000, rel=0.15)
    assert late > 3 * early


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([pattern for pattern in PATTERNS if pattern != "replay"]),
    st.floats(0.1, 50),
    st.floats(0.2, 5),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_times_are_sorted_bounded_and_repeatable(
    pattern: Any, rate: float, burstiness: float, burst: int, seed: int
) -> None:
    arrivals = Arrivals(pattern, rate, burstiness, burst, end_rate=2.0)
    times = arrival_times(arrivals, 5.0, seed)
    assert times == sorted(times)
    assert all(0 <= time < 5.0 for time in times)
    assert times == arrival_times(arrivals, 5.0, seed)
    assert str(arrivals)


@pytest.mark.parametrize("arrivals", [Arrivals("ramp", 1.0), Arrivals("replay")])
def test_incomplete_ones_are_refused(arrivals: Arrivals) -> None:
    with pytest.raises(VeloError):
        arrival_times(arrivals, 1.0)


@pytest.mark.parametrize(
    ("text", "low", "high", "middle"),
    [
        ("64", 64, 64, 64),
        ("uniform:8:16", 8, 16, 12),
        ("normal:100:10", 50, 150, 100),
        ("lognormal:50:0.5", 1, 999, 50),
    ],
)
def test_lengths(text: str, low: int, high: int, middle: int) -> None:
    lengths = parse_lengths(text)
    rng = random.Random(1)
    drawn = [lengths.draw(rng) for _ in range(200)]
    assert low <= min(drawn) <= middle <= max(drawn) <= high
    assert lengths.middle == middle
    assert parse_lengths(str(lengths)) == lengths


@pytest.mark.parametrize("text", ["", "0", "x", "uniform:9:3", "uniform:9", "zipf:1:2", "normal:5:-1", "1:2:3:4"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(VeloError):
        parse_lengths(text)

"""Metrics by hand."""

from __future__ import annotations

import pytest

from velollm_core.backends.request import Usage
from velollm_core.benchmark import metrics
from velollm_core.benchmark.timing import RequestTiming

TIMING = RequestTiming(
    intended=1.0,
    sent=1.5,
    ended=4.1,
    arrivals=(2.0, 2.5, 3.0, 4.0),
    first_output=2.5,
    usage=Usage(prompt_tokens=110, completion_tokens=9, cached_tokens=10, prefill_seconds=0.25, decode_seconds=1.8),
)


def test_each_formula() -> None:
    assert metrics.ttft(TIMING) == 1.0
    assert metrics.ttft_sent(TIMING) == 0.5
    assert metrics.ttfo(TIMING) == 1.5
    assert metrics.tpot(TIMING) == pytest.approx(2.0 / 8)
    assert metrics.e2e(TIMING) == 3.0
    assert metrics.decode_rate(TIMING) == pytest.approx(4.0)
    assert metrics.prefill_rate(TIMING) == pytest.approx(200)
    assert metrics.server_prefill_rate(TIMING) == pytest.approx(400)
    assert metrics.server_decode_rate(TIMING) == pytest.approx(5.0)
    assert metrics.gaps(TIMING) == [0.5, 0.5, 1.0]
    assert metrics.tokens_per_chunk([TIMING]) == pytest.approx(9 / 4)


def test_a_first_chunk_of_many_tokens_is_not_decode_time() -> None:
    timing = RequestTiming(0, 0, 2, arrivals=(1.0, 2.0), chunk_tokens=(6, 4), usage=Usage(completion_tokens=10))
    assert metrics.tpot(timing) == pytest.approx(1 / 4)


def test_what_waited_in_the_socket_is_not_decode_time() -> None:
    """Four chunks read at once after a pause of ours, then two in their own time."""
    arrivals = (1.0, 1.00001, 1.00002, 1.00003, 1.5, 2.0)
    timing = RequestTiming(0, 0, 2, arrivals=arrivals, usage=Usage(completion_tokens=6))
    assert metrics.tpot(timing) == pytest.approx(0.5)
    counted = RequestTiming(0, 0, 2, arrivals=arrivals, chunk_tokens=(2, 2, 2, 2, 1, 1))
    assert metrics.tpot(counted) == pytest.approx(0.5)
    assert metrics.clumped([timing]) == pytest.approx(0.6)
    assert metrics.clumped([RequestTiming(0, 0, 1, arrivals=(1.0,))]) is None


def test_an_answer_that_came_at_once_has_no_decode_rate() -> None:
    arrivals = tuple(1 + index * 5e-6 for index in range(9))
    timing = RequestTiming(0, 0, 2, arrivals=arrivals, usage=Usage(completion_tokens=9))
    assert metrics.tpot(timing) is None
    assert metrics.decode_rate(timing) is None


def test_nothing_came() -> None:
    timing = RequestTiming(0, 0, 1)
    assert [metric.of(timing) for metric in metrics.METRICS] == [None] * len(metrics.METRICS)
    assert metrics.gaps(timing) == []
    assert metrics.tokens_per_chunk([timing]) is None


def test_uncounted_tokens_give_no_rate() -> None:
    timing = RequestTiming(0, 0, 2, arrivals=(1.0, 2.0))
    assert metrics.ttft(timing) == 1.0
    assert metrics.tpot(timing) is None
    assert metrics.decode_rate(timing) is None
    assert metrics.prefill_rate(timing) is None


def test_one_token_has_no_decode_rate() -> None:
    assert metrics.tpot(RequestTiming(0, 0, 1, arrivals=(1.0,), usage=Usage(completion_tokens=1))) is None


def test_names_are_unique_and_formulas_told() -> None:
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)
    assert all(metric.formula and metric.unit for metric in metrics.METRICS)

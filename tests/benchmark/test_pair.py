"""Blocks into pairs, pairs into ratios."""

from __future__ import annotations

import math

import pytest
from attrs import evolve

from velollm_core.backends.request import Usage
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.noise import Noise, Quiet
from velollm_core.benchmark.pair import pair_up, score, speed, work_seconds
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.timing import Failure, RequestTiming

LOOK = Conditions(0.0, 0.0, None, Canary(1.0, 1.0))


def block(index: int, arm: str, verdict: Quiet = "clean") -> Block:
    return Block(index, arm, 0.0, LOOK, LOOK, Noise(verdict))


def sample(arm: str, index: int, seconds: float, task: str = "t", tokens: int = 11) -> Sample:
    """First token after a tenth of ``seconds``, the last at its end."""
    times = tuple(seconds * (0.1 + 0.9 * step / 10) for step in range(11))
    timing = RequestTiming(0.0, 0.0, seconds, times, usage=Usage(prompt_tokens=10, completion_tokens=tokens))
    return Sample(task, 0, 11, timing, arm, index)


def test_work_is_that_of_the_full_length() -> None:
    assert work_seconds(sample("a", 0, 2.0)) == pytest.approx(2.0)
    early = evolve(sample("a", 0, 2.0), max_tokens=21)
    assert work_seconds(early) == pytest.approx(0.2 + 20 * 0.18)
    assert work_seconds(evolve(early, timing=RequestTiming(0, 0, 1))) is None
    one = evolve(early, max_tokens=1)
    assert work_seconds(one) == pytest.approx(0.2)


def test_score_is_the_median_of_each_task_summed() -> None:
    samples = [sample("a", 0, seconds) for seconds in (1.0, 2.0, 30.0)] + [sample("a", 0, 4.0, "u")]
    found = score(samples)
    assert found is not None
    assert found.seconds == pytest.approx(6.0)
    assert found.ttft == pytest.approx(0.6)
    assert found.samples == 4


def test_warm_up_and_failures_do_not_count() -> None:
    bad = evolve(sample("a", 0, 9.0), warm_up=True)
    failed = evolve(sample("a", 0, 9.0), timing=RequestTiming(0, 0, 1, failure=Failure("x", "y")))
    found = score([sample("a", 0, 1.0), bad, failed])
    assert found is not None
    assert found.seconds == pytest.approx(1.0)
    assert score([bad, failed]) is None
    assert score([]) is None


def test_pairs_are_neighbouring_blocks_of_both_arms() -> None:
    blocks = [block(0, "a"), block(1, "b"), block(2, "b"), block(3, "a"), block(4, "a")]
    samples = [sample(each.arm, each.index, 2.0 if each.arm == "a" else 1.0) for each in blocks]
    pairs = pair_up(samples, blocks)
    assert [pair.order for pair in pairs] == [("a", "b"), ("b", "a")]
    assert [pair.log_ratio("a", "b", speed) for pair in pairs] == [pytest.approx(math.log(2))] * 2
    assert not any(pair.noisy for pair in pairs)


def test_invalid_and_empty_blocks_make_no_pair() -> None:
    blocks = [block(0, "a"), block(1, "b", "invalid"), block(2, "a"), block(3, "b"), block(4, "a"), block(5, "a")]
    samples = [sample(each.arm, each.index, 1.0) for each in blocks if each.index != 3]
    assert pair_up(samples, blocks) == []


def test_noisy_blocks_stay_and_are_marked() -> None:
    blocks = [block(0, "a"), block(1, "b", "noisy")]
    (pair,) = pair_up([sample("a", 0, 1.0), sample("b", 1, 1.0)], blocks)
    assert pair.noisy


def test_a_figure_that_lacks_gives_no_ratio() -> None:
    blocks = [block(0, "a"), block(1, "b")]
    (pair,) = pair_up([sample("a", 0, 1.0), sample("b", 1, 1.0)], blocks)
    assert pair.log_ratio("a", "b", lambda found: None) is None


def test_neighbours_of_two_pairs_are_no_pair() -> None:
    """After a block that is missing, its partner must not be paired with the first block of the next pair."""
    blocks = [block(1, "b"), block(2, "a"), block(3, "b")]
    samples = [sample("b", 1, 1.0), sample("a", 2, 1.0), sample("b", 3, 2.0)]
    assert [(pair.index, pair.order) for pair in pair_up(samples, blocks)] == [(1, ("a", "b"))]

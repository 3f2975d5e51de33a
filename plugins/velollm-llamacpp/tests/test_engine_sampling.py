"""From logits to tokens, in numpy."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_llamacpp.engine.messages import Draw, Run
from velollm_llamacpp.engine.sampling import choose, margin
from velollm_llamacpp.engine.worker import batches

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], np.float32))


def draws(count: int = 3000, **params: Any) -> Counter[int]:
    settings = {"temperature": 1.0, **params}
    return Counter(choose(LOGITS, Draw(**settings, seed=1, position=each)) for each in range(count))


def test_greedy_takes_the_best() -> None:
    assert choose(LOGITS, Draw()) == 1
    assert margin(LOGITS) == pytest.approx(float(np.log(0.4 / 0.3)), abs=1e-6)


def test_draws_follow_the_probabilities() -> None:
    found = draws()
    for token, wanted in enumerate([0.1, 0.4, 0.05, 0.3, 0.15]):
        assert found[token] / 3000 == pytest.approx(wanted, abs=0.04)


def test_restrictions_leave_out_the_unlikely() -> None:
    assert set(draws(top_k=2)) == {1, 3}
    assert set(draws(top_p=0.65)) == {1, 3}
    assert set(draws(min_p=0.3)) == {1, 3, 4}
    assert set(draws(top_k=3, top_p=0.5)) == {1, 3}
    assert set(draws(200, temperature=0.01)) == {1}
    assert set(draws(200, temperature=5e-324)) == {1}
    assert set(draws(200, top_p=0.0)) == {1}


def test_a_token_that_may_not_come_does_not() -> None:
    row = LOGITS.copy()
    assert choose(row, Draw(without=(1, 99))) == 3
    assert set(draws(without=(1, 4))) == {0, 2, 3}
    assert set(draws(top_k=2, without=(1,))) == {3, 4}
    assert np.array_equal(row, LOGITS)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ValueError, match="finite"):
        choose(np.full(4, np.nan, np.float32), Draw())


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    st.floats(0, 3, exclude_min=True),
    st.integers(0, 50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**31),
)
def test_a_draw_is_always_allowed(
    values: list[float], heat: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    logits = np.array(values, np.float32)
    draw = Draw(heat, top_k, top_p, min_p, seed, 3)
    token = choose(logits, draw)
    assert token == choose(logits, draw)
    rank = int((logits > logits[token]).sum())
    assert rank < (top_k or len(values))
    assert logits[token] - logits.max() >= heat * np.log(min_p or 1e-30) - 1e-3


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=8), st.integers(1, 20))
def test_batches_hold_every_token_once(lengths: list[int], largest: int) -> None:
    runs = tuple(Run(index, 5, tuple(range(length)), Draw()) for index, length in enumerate(lengths))
    pieces = batches(runs, largest)
    assert all(0 < sum(len(run.token_ids) for run in batch) <= largest for batch in pieces)
    flat = [run for batch in pieces for run in batch]
    for run in runs:
        mine = [piece for piece in flat if piece.sequence == run.sequence]
        assert sum((piece.token_ids for piece in mine), ()) == run.token_ids
        assert [piece.draw is not None for piece in mine] == [False] * (len(mine) - 1) + [True]
        assert mine[0].start == 5

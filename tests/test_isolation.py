"""Calls that fail or hang are outcomes, not ends."""

from __future__ import annotations

import threading

import pytest

from velollm_core.isolation import Hung, bounded, bounded_each


def test_a_value_comes_back() -> None:
    assert bounded(lambda: 42, 5) == 42


def test_an_error_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        bounded(lambda: 1 // 0, 5)


def test_a_hanging_call_is_left_behind() -> None:
    release = threading.Event()
    with pytest.raises(Hung, match=r"no answer within 0\.05 s"):
        bounded(release.wait, 0.05)
    release.set()


def test_even_an_exit_is_an_outcome() -> None:
    def leave() -> None:
        raise SystemExit(3)

    outcomes = bounded_each({"leaves": leave, "stays": lambda: None}, 5)
    assert isinstance(outcomes["leaves"], SystemExit)
    assert outcomes["stays"] is None


def test_calls_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=5)
    outcomes = bounded_each(dict.fromkeys("abc", meeting.wait), 10)
    assert sorted(outcomes.values()) == [0, 1, 2]

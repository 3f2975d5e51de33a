"""When a warm-up counts as steady."""

from __future__ import annotations

import pytest

from velollm_core.benchmark.warmup import WarmUpRule, has_trend, is_stable

RULE = WarmUpRule()


@pytest.mark.parametrize(
    ("seconds", "stable"),
    [
        ([9, 1, 1.01, 0.99, 1.0], True),
        ([1, 1, 1], False),
        ([1.0, 1.1, 0.9, 1.0], False),
        ([1.03, 1.02, 1.01, 1.0], False),
        ([1, 1, 1, 0], False),
        ([1, 1, 1, 1], True),
    ],
)
def test_steady(seconds: list[float], stable: bool) -> None:
    assert is_stable(seconds, RULE) is stable


def test_trend() -> None:
    assert has_trend([1, 2, 3, 4.1])
    assert not has_trend([1, 2, 1, 2])
    assert not has_trend([5, 5, 5, 5])
    assert not has_trend([1, 2])


def test_the_rule_states_itself() -> None:
    assert str(RULE) == "the last 4 requests within 3% and without trend, at most 10 requests or 60 s"

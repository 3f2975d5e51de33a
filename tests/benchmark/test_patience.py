"""When a backend is given up."""

from __future__ import annotations

import pytest

from velollm_core.benchmark.patience import MANY, Patience
from velollm_core.benchmark.timing import Failure

BUSY, GONE = Failure("http_429", "slow down"), Failure("unreachable", "nobody there")


def seen(patience: Patience, *failures: Failure | None, every: float = 1.0) -> list[bool]:
    over = []
    for number, failure in enumerate(failures, 1):
        patience.see(failure, number * every)
        over.append(patience.is_over(number * every))
    return over


def test_a_few_failures_end_a_list_of_tasks() -> None:
    assert seen(Patience(), BUSY, BUSY, None, BUSY, BUSY, BUSY) == [False, False, False, False, False, True]


@pytest.mark.parametrize("kind", ["unreachable", "timeout", "crash", "http_401", "http_404"])
def test_what_is_final_ends_a_load_as_soon(kind: str) -> None:
    assert seen(Patience(patient=True), None, *[Failure(kind, "no")] * 3) == [False, False, False, True]


def test_a_server_that_turns_many_away_is_measured_on() -> None:
    patience = Patience(patient=True)
    assert not any(seen(patience, *[None, *[BUSY] * (MANY - 1)] * 5))


def test_many_failures_end_a_load_only_after_a_while() -> None:
    together = [None, *[BUSY] * (3 * MANY)]
    assert not any(seen(Patience(patient=True), *together, every=0.01))
    assert seen(Patience(patient=True), *together, every=1.0).index(True) == MANY
    assert seen(Patience(patient=True), *[BUSY] * 99, every=1.0).index(True) == MANY - 1


def test_the_reason_is_told() -> None:
    patience = Patience()
    seen(patience, BUSY, GONE)
    assert patience.reason == "the last 2 requests failed (unreachable: nobody there)"

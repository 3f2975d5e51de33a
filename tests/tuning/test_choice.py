"""What follows from speed and answers together."""

from __future__ import annotations

import pytest

from velollm_core.autopilot.outcome import Outcome
from velollm_core.benchmark.noise import overall
from velollm_core.tuning.outcome import choose
from velollm_core.tuning.quality import compare_answers

SAME, OTHER = [list("abcd")], [list("xbcd")]


def final(chosen: str) -> Outcome:
    return Outcome(chosen, "as measured", None, (), (), (), overall([]), 0, 1.0)


@pytest.mark.parametrize("candidate", [SAME, None])
def test_speed_decides_where_answers_agree(candidate: list[list[str]] | None) -> None:
    quality = compare_answers(["kv"], SAME, SAME, candidate) if candidate else None
    for chosen in ("default", "fast"):
        assert choose("default", final(chosen), quality) == (chosen, "as measured")


def test_answers_that_differ_forbid_the_change() -> None:
    quality = compare_answers(["kv"], SAME, SAME, OTHER)
    chosen, reason = choose("default", final("fast"), quality)
    assert chosen == "default"
    assert "stay equal for 0% of an answer" in reason
    assert choose("default", final("default"), quality) == ("default", "as measured")


def test_answers_that_could_not_be_compared_forbid_it_too() -> None:
    chosen, reason = choose("default", final("fast"), None, "it broke off")
    assert (chosen, reason) == ("default", "faster, but its answers could not be compared: it broke off")

"""What follows from speed and answers together, for every command that compares two configurations."""

from __future__ import annotations

import pytest

from velollm_core.autopilot.experiment import Findings, Setup
from velollm_core.autopilot.outcome import Outcome, conclude
from velollm_core.autopilot.shape import Shape
from velollm_core.backends.status import Status
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.pair import Pair, Score
from velollm_core.benchmark.quality import Answer, Guarded, compare_answers
from velollm_core.benchmark.workload import Task, Workload

SAME, OTHER = [Answer(tuple("abcd"))], [Answer(tuple("xbcd"))]
NAMES = ("default", "fast")


def concluded(seconds: float, guarded: Guarded) -> Outcome:
    """The outcome of eight pairs in which the second arm takes ``seconds`` where the first takes one."""
    scores = [Score(time, None, None, 0.1, 1) for time in (1.0, seconds)]
    pairs = [Pair(index, NAMES, dict(zip(NAMES, scores, strict=True)), noisy=False) for index in range(8)]
    workload = Workload("w", "m", (Task("t", "p", 48, 1),))
    arms = (Arm("default"), Arm("fast"))
    setup = Setup(None, Status(reachable=True), None, "m", arms, Shape(), 1.0)  # type: ignore[arg-type]
    return conclude(setup, Findings(workload, pairs, guarded=guarded))


@pytest.mark.parametrize("guarded", [Guarded(), Guarded(compare_answers(["kv"], SAME, SAME, SAME))])
def test_speed_decides_where_answers_agree(guarded: Guarded) -> None:
    for seconds, chosen in ((0.5, "fast"), (1.0, "default"), (2.0, "default")):
        found = concluded(seconds, guarded)
        assert found.chosen == chosen
        assert found.quality == guarded.quality


def test_answers_that_differ_forbid_the_change() -> None:
    guarded = Guarded(compare_answers(["kv"], SAME, SAME, OTHER))
    found = concluded(0.5, guarded)
    assert found.comparison is not None
    assert (found.chosen, found.comparison.verdict) == ("default", "faster")
    assert "stay equal for 0% of an answer" in found.reason
    assert concluded(2.0, guarded).reason == "the planned settings are slower here"


def test_answers_that_could_not_be_compared_forbid_it_too() -> None:
    found = concluded(0.5, Guarded(problem="it broke off"))
    assert (found.chosen, found.reason) == ("default", "faster, but its answers could not be compared: it broke off")
    assert found.unguarded == "it broke off"

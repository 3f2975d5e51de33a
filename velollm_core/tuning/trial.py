"""One measurement of one candidate in the race."""

from __future__ import annotations

from attrs import frozen

from velollm_core.benchmark.pair import Score


@frozen
class Trial:
    """``candidate`` in round ``round`` of ``stage``: its ``score``, or why it has none.

    ``resumed`` tells that it was measured by an earlier run that was stopped.
    """

    candidate: str
    stage: str
    round: int
    score: Score | None
    reason: str | None = None
    resumed: bool = False

"""The seam of `schedule`: what the next step computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    from velollm_core.engine.blocks import BlockManager
    from velollm_core.engine.limits import SchedulerLimits
    from velollm_core.engine.output import SchedulerOutput
    from velollm_core.engine.results import StepResults
    from velollm_core.engine.sequence import Sequence


@frozen
class SchedulerStats:
    """Sequences by where they stand, and what happened since the start.

    ``leaving`` are those that ended, or gave way, and hold their blocks until their last step in flight has retired.
    """

    running: int
    leaving: int
    waiting: int
    swapped: int
    finished: int
    preemptions: int
    swaps: int


@runtime_checkable
class Scheduler(Protocol):
    """Decides, step by step, which tokens of which sequences are computed.

    `velollm_core.testing.SchedulerContract` judges an implementation.
    """

    @property
    def limits(self) -> SchedulerLimits:
        """What it may not exceed."""

    @property
    def blocks(self) -> BlockManager:
        """Where its blocks come from."""

    @property
    def has_work(self) -> bool:
        """Whether a sequence waits, runs, or still holds blocks of a step in flight."""

    def add(self, sequence: Sequence) -> None:
        """Queue ``sequence``; raises `OutOfBlocks` at once, with its arithmetic, if it can never fit."""

    def abort(self, sequence_id: str) -> bool:
        """End a sequence; False if there is none of that id. Tokens still in flight for it are dropped."""

    def schedule(self) -> SchedulerOutput:
        """Plan the next step; an empty output means that nothing can run until a step in flight has retired."""

    def update(self, output: SchedulerOutput, results: StepResults) -> list[Sequence]:
        """Take in the results of the oldest step in flight; return the sequences that ended with it."""

    def stats(self) -> SchedulerStats:
        """The counters, now."""

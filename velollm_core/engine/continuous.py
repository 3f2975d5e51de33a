"""The core's scheduler: continuous batching without phases, under one token budget a step."""

from __future__ import annotations

from velollm_core.engine.acceptance import check_limits
from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.planner import StepPlanner
from velollm_core.engine.results import StepResults
from velollm_core.engine.roster import Roster
from velollm_core.engine.scheduling import SchedulerStats
from velollm_core.engine.sequence import Sequence
from velollm_core.engine.uptake import ResultUptake


class ContinuousScheduler:
    """Implements `Scheduler`.

    Each step: one token of every decoding sequence, then prompts from what is left of the budget, then newcomers.
    A sequence that finds no free block takes one from the newest sequence, never from an older; the newest waits.
    """

    def __init__(self, limits: SchedulerLimits, blocks: BlockManager) -> None:
        self._limits = limits
        self._blocks = blocks
        self._roster = Roster(blocks, limits.patience)
        self._planner = StepPlanner(limits, blocks, self._roster)
        self._uptake = ResultUptake(limits.max_draft_tokens, blocks, self._roster)

    @property
    def limits(self) -> SchedulerLimits:
        """What it may not exceed."""
        return self._limits

    @property
    def blocks(self) -> BlockManager:
        """Where its blocks come from."""
        return self._blocks

    @property
    def has_work(self) -> bool:
        """Whether a sequence waits, runs, or still holds blocks of a step in flight."""
        return bool(self._roster)

    def add(self, sequence: Sequence) -> None:
        """Queue ``sequence``.

        Raises:
            OutOfBlocks: it can never fit, by its length or by the cache.
            VeloError: it is empty, asks for no token, or its id is taken.
        """
        check_limits(sequence, self._limits)
        self._blocks.check(sequence.max_length - 1)
        self._roster.add(sequence)

    def abort(self, sequence_id: str) -> bool:
        """End a sequence; False if there is none of that id. Tokens still in flight for it are dropped."""
        return self._roster.abort(sequence_id)

    def schedule(self) -> SchedulerOutput:
        """Plan the next step; an empty output means that nothing can run until a step in flight has retired."""
        return self._planner.plan()

    def update(self, output: SchedulerOutput, results: StepResults) -> list[Sequence]:
        """Take in the results of the oldest step in flight; return the sequences that ended with it.

        Raises:
            ValueError: the steps come out of order, or the results have not one row for each that samples.
        """
        return self._uptake.take(output, results)

    def stats(self) -> SchedulerStats:
        """The counters, now."""
        return self._roster.stats()

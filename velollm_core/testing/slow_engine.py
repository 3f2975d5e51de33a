"""An engine that pretends, and takes a moment for each step: for tests of whatever waits for one."""

from __future__ import annotations

import os
import signal
import time
from contextlib import aclosing

from attrs import define

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.defaults import default_scheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.paged import PagedBlockManager
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import FinishReason, Sequence
from velollm_core.engine.streams import StreamingEngine
from velollm_core.errors import VeloError
from velollm_core.testing.cache_executor import CacheExecutor

LAYOUT = KVCacheLayout((KVGroup(1, 4),), 4)
LIMITS = SchedulerLimits(8, 64, 400)


@define(frozen=True)
class SlowEngine:
    """What to pretend: ``pause`` seconds a step, a cache of ``blocks``; ``error`` instead of step ``breaks_at``.

    With ``dies`` that step ends the whole process, as a fault of the device would. ``uncounted`` is what asking for the
    cache's counters raises.
    """

    pause: float = 0.001
    breaks_at: int | None = None
    error: Exception | None = None
    dies: bool = False
    blocks: int = 200
    limits: SchedulerLimits = LIMITS
    refusal: VeloError | None = None
    uncounted: VeloError | None = None

    def open(self) -> tuple[EngineLoop, str]:
        """A fresh one; the second is what it says of itself.

        Raises:
            VeloError: its ``refusal``.
        """
        if self.refusal:
            raise self.refusal
        manager = SlowBlocks(self, LAYOUT, LAYOUT.num_blocks(self.blocks * LAYOUT.bytes_per_block[0]))
        return EngineLoop(default_scheduler(self.limits, manager), SlowExecutor(self)), "slow"


class SlowBlocks(PagedBlockManager):
    """Blocks as the core hands them out, which perhaps cannot be counted."""

    def __init__(self, wanted: SlowEngine, layout: KVCacheLayout, num_blocks: tuple[int, ...]) -> None:
        super().__init__(layout, num_blocks)
        self.wanted = wanted

    def usage(self) -> BlockUsage:
        """The counters, or the failure."""
        if self.wanted.uncounted:
            raise self.wanted.uncounted
        return super().usage()


class SlowExecutor(CacheExecutor):
    """Computes as `CacheExecutor` does, at a pace, until it breaks."""

    def __init__(self, wanted: SlowEngine) -> None:
        super().__init__(LAYOUT, lateness=1)
        self.wanted = wanted
        self.closed = False

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step, or break."""
        if output.step == self.wanted.breaks_at:
            if self.wanted.dies:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.wanted.error:
                raise self.wanted.error
        super().launch(output)

    def collect(self) -> StepResults:
        """The results, after the pause."""
        time.sleep(self.wanted.pause)
        return super().collect()

    def close(self) -> None:
        """Remember it."""
        self.closed = True


async def collect(engine: StreamingEngine, sequence: Sequence) -> tuple[list[int], FinishReason | None]:
    """All tokens of one sequence, and why it ended."""
    tokens: list[int] = []
    reason = None
    async with aclosing(engine.stream(sequence)) as batches:
        async for batch in batches:
            tokens += batch.token_ids
            reason = batch.finish_reason
    return tokens, reason

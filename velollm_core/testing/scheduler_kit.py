"""A scheduler under test, in an engine over a pretended model."""

from __future__ import annotations

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.defaults import default_block_manager
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.scheduling import Scheduler
from velollm_core.testing.engine_rig import EngineRig

LAYOUT = KVCacheLayout((KVGroup(1, 4),), block_size=4)
BLOCK_BYTES = 16


def answer(output: SchedulerOutput, token: int = 7) -> StepResults:
    """The same token for every row."""
    return StepResults([token] * len(output.sampled))


class SchedulerUnderTest:
    """Makes the schedulers that a contract judges."""

    def make_scheduler(self, limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
        """The scheduler under test."""
        raise NotImplementedError

    def rig(self, limits: SchedulerLimits, num_blocks: int = 100, lateness: int = 0) -> EngineRig:
        """An engine around the scheduler under test; blocks hold four tokens."""
        memory = num_blocks * BLOCK_BYTES
        return EngineRig(default_block_manager, self.make_scheduler, LAYOUT, memory, limits, lateness)

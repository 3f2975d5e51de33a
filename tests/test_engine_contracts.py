"""The core's own block manager and scheduler against the contracts that judge any replacement."""

from __future__ import annotations

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.scheduling import Scheduler
from velollm_core.testing import BlockManagerContract, SchedulerContract


class TestPagedBlockManager(BlockManagerContract):
    def make_blocks(self, layout: KVCacheLayout, memory: int) -> BlockManager:
        return default_block_manager(layout, memory)


class TestContinuousScheduler(SchedulerContract):
    def make_scheduler(self, limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
        return default_scheduler(limits, blocks)

"""What the core hands out where no plugin does."""

from __future__ import annotations

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.paged import PagedBlockManager
from velollm_core.engine.scheduling import Scheduler


def default_block_manager(layout: KVCacheLayout, memory: int) -> BlockManager:
    """A `PagedBlockManager` over ``memory`` bytes."""
    return PagedBlockManager(layout, layout.num_blocks(memory))


def default_scheduler(limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
    """A `ContinuousScheduler` over ``blocks``."""
    return ContinuousScheduler(limits, blocks)

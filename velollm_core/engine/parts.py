"""Where an engine's block manager and scheduler come from."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.scheduling import Scheduler


@frozen
class EngineParts:
    """Makes the two parts of an engine that can be replaced: the core's own unless others are given.

    ``allocate_kv`` takes a layout and the cache's bytes, ``schedule`` the limits and the block manager, as the hooks of
    the same names do. `velollm_core.parts.installed_parts` asks the installed plugins.
    """

    allocate_kv: Callable[[KVCacheLayout, int], BlockManager] = default_block_manager
    schedule: Callable[[SchedulerLimits, BlockManager], Scheduler] = default_scheduler


CORE = EngineParts()

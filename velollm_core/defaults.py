"""The core's own hook implementations: all `trylast`, so that any plugin comes first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from velollm_core.backends.backend import Backend
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.workload import Workload
    from velollm_core.engine.blocks import BlockManager
    from velollm_core.engine.layout import KVCacheLayout
    from velollm_core.engine.limits import SchedulerLimits
    from velollm_core.engine.scheduling import Scheduler


@hookimpl(trylast=True)
def benchmark(backend: Backend, workload: Workload) -> Awaitable[Report]:
    """Measure with the core's own runner."""
    from velollm_core.benchmark.runner import run

    return run(backend, workload)


@hookimpl(trylast=True)
def allocate_kv(layout: KVCacheLayout, memory: int) -> BlockManager:
    """Hand out the core's block manager."""
    from velollm_core.engine.defaults import default_block_manager

    return default_block_manager(layout, memory)


@hookimpl(trylast=True)
def schedule(limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
    """Hand out the core's scheduler."""
    from velollm_core.engine.defaults import default_scheduler

    return default_scheduler(limits, blocks)

"""The five hooks: this file is VeloLLM's plugin API.

A plugin is a module registered under the entry-point group ``velollm``; it implements any of these functions, marked
with ``hookimpl``, naming only the arguments it needs (an argument with a default value is never passed). Hooks are
synchronous and do no I/O: they hand out objects, and the objects do the work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from velollm_core.backends.backend import Backend
    from velollm_core.backends.setting import Plan
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.workload import Workload
    from velollm_core.engine.blocks import BlockManager
    from velollm_core.engine.layout import KVCacheLayout
    from velollm_core.engine.limits import SchedulerLimits
    from velollm_core.engine.scheduling import Scheduler
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec

hookspec = pluggy.HookspecMarker("velollm")
hookimpl = pluggy.HookimplMarker("velollm")


@hookspec
def detect(hardware: Hardware) -> Sequence[Backend] | None:
    """Offer every backend this plugin can drive on this machine.

    Called once a command. No I/O here: the core awaits each backend's `status()` side by side, with one timeout.
    ``None`` or an empty list means that there is nothing to offer. Since 0.1.
    """


@hookspec
def optimize(backend: Backend, model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan | None:
    """Plan the settings for ``backend``, each with its reason, and the memory they need.

    Called after `status()` and `resolve()` have answered. ``None`` for a backend that is not yours. Since 0.1.
    """


@hookspec(firstresult=True)
def benchmark(backend: Backend, workload: Workload) -> Awaitable[Report] | None:
    """Measure ``backend`` under ``workload``: the one hook whose answer is awaited.

    ``None`` leaves it to the core's own runner, which answers if nobody else does. Since 0.1.
    """


@hookspec(firstresult=True)
def allocate_kv(layout: KVCacheLayout, memory: int) -> BlockManager | None:
    """Hand out the block manager for ``memory`` bytes of cache.

    Called once, when an engine starts. ``None`` leaves it to the next plugin, and last to the core. Since 0.1.
    """


@hookspec(firstresult=True)
def schedule(limits: SchedulerLimits, blocks: BlockManager) -> Scheduler | None:
    """Hand out the scheduler over ``blocks``.

    Called once, when an engine starts; the engine then asks the scheduler itself, every step. Since 0.1.
    """

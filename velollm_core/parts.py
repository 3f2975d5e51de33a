"""The parts of an engine as the installed plugins hand them out: what every engine asks when it starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from attrs import define

from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.errors import PluginError, VeloError
from velollm_core.plugins import Plugins

if TYPE_CHECKING:
    from velollm_core.engine.blocks import BlockManager
    from velollm_core.engine.limits import SchedulerLimits
    from velollm_core.engine.output import SchedulerOutput
    from velollm_core.engine.results import StepResults
    from velollm_core.engine.scheduling import Scheduler, SchedulerStats
    from velollm_core.engine.sequence import Sequence


def installed_parts(plugins: Plugins | None = None) -> EngineParts:
    """The hooks `allocate_kv` and `schedule` of ``plugins``, or of all that are installed; else the core's own.

    What they hand out raises `PluginError`, with the plugin's name, wherever it fails while the engine runs.
    """
    plugins = Plugins.load() if plugins is None else plugins
    origin = " and ".join(sorted({*plugins.answering("allocate_kv"), *plugins.answering("schedule")}))
    if not origin:
        return CORE

    def schedule(limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
        return _Watched(plugins.schedule(limits, blocks), origin)

    return EngineParts(plugins.allocate_kv, schedule)


@define(eq=False)
class _Watched:
    """A scheduler that is a plugin's, or that runs over a plugin's blocks: its failures say whose they are."""

    _scheduler: Scheduler
    _origin: str

    @property
    def limits(self) -> SchedulerLimits:
        return self._scheduler.limits

    @property
    def blocks(self) -> BlockManager:
        return self._scheduler.blocks

    @property
    def has_work(self) -> bool:
        with self._blaming("has_work"):
            return self._scheduler.has_work

    def add(self, sequence: Sequence) -> None:
        with self._blaming("add"):
            self._scheduler.add(sequence)

    def abort(self, sequence_id: str) -> bool:
        with self._blaming("abort"):
            return self._scheduler.abort(sequence_id)

    def schedule(self) -> SchedulerOutput:
        with self._blaming("schedule"):
            return self._scheduler.schedule()

    def update(self, output: SchedulerOutput, results: StepResults) -> list[Sequence]:
        with self._blaming("update"):
            return self._scheduler.update(output, results)

    def stats(self) -> SchedulerStats:
        with self._blaming("stats"):
            return self._scheduler.stats()

    @contextmanager
    def _blaming(self, method: str) -> Iterator[None]:
        try:
            yield
        except VeloError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise PluginError(f"{self._origin}: failed in the engine's {method}(): {reason}") from error

"""The engine's loop: plan, launch, collect, take in. There is no other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from attrs import frozen

from velollm_core.engine.executor import Executor
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.scheduling import Scheduler
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import VeloError


@frozen
class RetiredStep:
    """A step that is over; ``ended`` are the sequences it was the last for."""

    output: SchedulerOutput
    results: StepResults
    ended: tuple[Sequence, ...]


class EngineLoop:
    """Drives an executor by a scheduler, up to the executor's depth of steps ahead."""

    def __init__(self, scheduler: Scheduler, executor: Executor) -> None:
        self.scheduler = scheduler
        self.executor = executor
        self._in_flight: deque[SchedulerOutput] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to plan and nothing in flight."""
        return not self._in_flight and not self.scheduler.has_work

    def step(self) -> RetiredStep | None:
        """Launch what can be planned; then take in the oldest step if no more may be in flight.

        Raises:
            VeloError: the scheduler has work and nothing in flight, and plans nothing.
        """
        output = self.scheduler.schedule()
        if not output.is_empty:
            self.executor.launch(output)
            self._in_flight.append(output)
            if len(self._in_flight) < self.executor.depth:
                return None
        if not self._in_flight:
            if self.scheduler.has_work:
                raise VeloError(f"the scheduler has work and plans nothing, a bug of its own: {self.scheduler.stats()}")
            return None
        oldest = self._in_flight.popleft()
        results = self.executor.collect()
        return RetiredStep(oldest, results, tuple(self.scheduler.update(oldest, results)))

    def run(self) -> Iterator[RetiredStep]:
        """Step until idle."""
        while not self.is_idle:
            retired = self.step()
            if retired is not None:
                yield retired

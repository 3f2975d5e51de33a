"""An executor that takes only simulated time."""

from __future__ import annotations

from collections import deque

from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.step_times import StepTimes

TOKEN = 1


class SimulatedExecutor:
    """Moves ``now`` on by what `StepTimes` says of each step; every token it samples is the same.

    ``host_seconds`` are spent planning a step; at ``depth`` 2 they are hidden behind the step before.
    """

    def __init__(self, times: StepTimes, *, depth: int = 1, host_seconds: float = 0.0) -> None:
        self._times = times
        self._depth = depth
        self._host = host_seconds
        self._busy_until = 0.0
        self._finished: deque[tuple[float, int]] = deque()
        self._bases: tuple[int, ...] = ()
        self._base_sum = 0
        self.now = 0.0
        self.busy_seconds = 0.0

    @property
    def depth(self) -> int:
        """How many steps may be in flight."""
        return self._depth

    def launch(self, output: SchedulerOutput) -> None:
        """Put the step behind those in flight."""
        self.now += self._host
        tokens, context, rows = self._size(output)
        seconds = self._times.seconds(tokens, context)
        self._busy_until = max(self._busy_until, self.now) + seconds
        self.busy_seconds += seconds
        self._finished.append((self._busy_until, rows))

    def collect(self) -> StepResults:
        """Let the time pass until the oldest step is over."""
        finished, rows = self._finished.popleft()
        self.now = max(self.now, finished)
        return StepResults([TOKEN] * rows)

    def close(self) -> None:
        """Nothing to let go of."""

    def wait_until(self, moment: float) -> None:
        """Nothing happens before ``moment``."""
        self.now = max(self.now, moment)

    def _size(self, output: SchedulerOutput) -> tuple[int, int, int]:
        """Tokens, tokens of context and rows of a step; a batch that stays the same is not summed again."""
        if output.bases is not self._bases:
            self._bases, self._base_sum = output.bases, sum(output.bases)
        tokens = rows = len(output.decodes)
        context = self._base_sum + rows * (output.tick + 1)
        for chunk in output.chunks:
            size = len(chunk.token_ids)
            tokens += size
            context += chunk.start + size
            rows += chunk.samples > 0
        return tokens, context, rows

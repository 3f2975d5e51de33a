"""The core loop's executor over a `ModelRunner`: launch a step, hand back the one before."""

from __future__ import annotations

from collections import deque

from attrs import define, field

from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_cuda.runner import ModelRunner
from velollm_cuda.transfer import Returning


@define(eq=False)
class TorchExecutor:
    """Implements `velollm_core.engine.executor.Executor`.

    On a GPU two steps may be in flight: the next is launched while the tokens of the last are on their way.
    """

    runner: ModelRunner
    _pending: deque[Returning] = field(init=False, factory=deque)

    @property
    def depth(self) -> int:
        """Steps that may be in flight."""
        return 2 if self.runner.state.device.type == "cuda" else 1

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step."""
        self._pending.append(Returning.of(self.runner.run(output)))

    def collect(self) -> StepResults:
        """The tokens of the oldest step in flight; waits for them."""
        return StepResults(self._pending.popleft().wait())

    def close(self) -> None:
        """Drop what is in flight."""
        self._pending.clear()

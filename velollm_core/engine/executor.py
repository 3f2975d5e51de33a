"""What carries out steps: the seam between the loop and whatever touches memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from velollm_core.engine.output import SchedulerOutput
    from velollm_core.engine.results import StepResults


class Executor(Protocol):
    """Runs steps in the order of their launch, from one thread.

    A decode's token is the last one sampled for its sequence, wherever that is kept: with a step in flight, the
    scheduler does not know it yet. A sequence enters, and comes back, with a chunk of known tokens.
    """

    @property
    def depth(self) -> int:
        """How many steps may be in flight: 1 answers each before the next is planned, 2 hides the planning."""

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step; may return before it is done."""

    def collect(self) -> StepResults:
        """The results of the oldest step launched and not collected; waits for them."""

    def close(self) -> None:
        """Let go of memory, threads and processes."""

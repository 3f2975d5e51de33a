"""One measured request and its place in the experiment."""

from __future__ import annotations

from attrs import frozen

from velollm_core.benchmark.timing import RequestTiming


@frozen
class Sample:
    """``timing`` of request number ``index`` of ``task``, one of ``max_tokens``.

    ``arm`` names the configuration that answered, ``block`` the stretch of the run between two restarts; a run without
    comparison has the arm ``measured``. Warm-up requests are kept, and counted nowhere.
    """

    task: str
    index: int
    max_tokens: int
    timing: RequestTiming
    arm: str = "measured"
    block: int = 0
    warm_up: bool = False

    @property
    def counts(self) -> bool:
        """Whether it enters the figures: it succeeded, after the warm-up."""
        return self.timing.failure is None and not self.warm_up

    @property
    def short(self) -> bool:
        """Whether the model ended before nine tenths of the tokens asked for, so that its E2E is of less work."""
        produced = self.timing.completion_tokens
        return produced is not None and produced < 0.9 * self.max_tokens

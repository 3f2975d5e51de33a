"""The core loop's executor over a `ModelRunner`: launch a step, hand back the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from attrs import define, field, frozen

from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Ranking
from velollm_cuda.runner import ModelRunner
from velollm_cuda.transfer import Returning, to_device

Row = list[float]


@define(eq=False)
class TorchExecutor:
    """Implements `velollm_core.engine.executor.Executor`.

    On a GPU two steps may be in flight: the next is launched while the tokens of the last are on their way.
    """

    runner: ModelRunner
    _pending: deque[_Step] = field(init=False, factory=deque)

    @property
    def depth(self) -> int:
        """Steps that may be in flight."""
        return 2 if self.runner.state.device.type == "cuda" else 1

    def launch(self, output: SchedulerOutput) -> None:
        """Begin a step."""
        tokens = Returning[int].of(self.runner.run(output))
        state = self.runner.state
        if not state.asks.logprobs:
            self._pending.append(_Step(tokens))
            return
        sampled = output.sampled
        rows = to_device([state.row(sequence) for sequence in sampled], torch.int64, state.device)
        wanted = [(row, each.sampling.top_logprobs) for row, each in enumerate(sampled) if each.sampling.logprobs]
        logprobs, ranked = Returning[float].of(state.logprobs[rows]), None
        if state.asks.ranked:
            ranked = Returning[Row].of(state.ranked_ids[rows]), Returning[Row].of(state.ranked_logprobs[rows])
        self._pending.append(_Step(tokens, logprobs, ranked, wanted))

    def collect(self) -> StepResults:
        """The tokens of the oldest step in flight; waits for them."""
        step = self._pending.popleft()
        return StepResults(step.tokens.wait(), logprobs=step.wanted(), alternatives=step.alternatives())

    def close(self) -> None:
        """Drop what is in flight."""
        self._pending.clear()


@frozen
class _Step:
    """A step in flight; ``asking`` are the rows of its ``logprobs`` that somebody wants, and how many alternatives."""

    tokens: Returning[int]
    logprobs: Returning[float] | None = None
    ranked: tuple[Returning[Row], Returning[Row]] | None = None
    asking: Sequence[tuple[int, int]] = ()

    def wanted(self) -> dict[int, tuple[float, ...]]:
        if self.logprobs is None:
            return {}
        values = self.logprobs.wait()
        return {row: (values[row],) for row, _ in self.asking}

    def alternatives(self) -> dict[int, tuple[Ranking, ...]]:
        if self.ranked is None:
            return {}
        ids, values = (each.wait() for each in self.ranked)
        wanted = [(row, count) for row, count in self.asking if count]
        pairs = {row: zip(map(int, ids[row][:count]), values[row], strict=False) for row, count in wanted}
        return {row: (tuple(each),) for row, each in pairs.items()}

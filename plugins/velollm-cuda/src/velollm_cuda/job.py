"""One prompt on its way through the engine: its sequences, and when each of them has said enough."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from collections.abc import Sequence as Row

from attrs import define, evolve, field

from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.sequence import Sequence
from velollm_cuda.output import Completion, Generation
from velollm_cuda.params import SamplingParams
from velollm_cuda.stopping import StopWatch
from velollm_cuda.tokens import Tokenizer


@define(eq=False)
class Job:
    """``stop_ids`` end an answer; with stop strings ``tokenizer`` reads along."""

    id: str
    prompt: str | None
    token_ids: Row[int]
    params: SamplingParams
    stop_ids: frozenset[int]
    tokenizer: Tokenizer | None = None
    use_cache: bool = True
    sequences: list[Sequence] = field(init=False, factory=list)
    watches: dict[str, StopWatch] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        parent: Sequence | None = None
        for index in range(self.params.n):
            params = evolve(self.params, seed=(self.params.seed or 0) + index)
            sequence = Sequence(
                f"{self.id}-{index}", list(self.token_ids), params, self.stop_ids, parent=parent,
                use_cache=self.use_cache,
            )  # fmt: skip
            parent = parent or sequence
            self.sequences.append(sequence)
            if self.tokenizer is not None:
                self.watches[sequence.id] = StopWatch(self.params.stop, self.params.min_tokens, self.tokenizer)

    def watch(self, loop: EngineLoop) -> None:
        """Read what is new, and end the sequences whose text holds a stop string."""
        for sequence in self.sequences:
            watch = self.watches[sequence.id]
            if watch.found is None and watch.reads(sequence):
                loop.scheduler.abort(sequence.id)

    def generation(self, tokenizer: Tokenizer | None) -> Generation:
        """What came of it."""
        outputs = tuple(self._completion(index, each, tokenizer) for index, each in enumerate(self.sequences))
        return Generation(self.prompt, tuple(self.token_ids), outputs, self.sequences[0].num_cached)

    def _completion(self, index: int, sequence: Sequence, tokenizer: Tokenizer | None) -> Completion:
        token_ids, reason = sequence.output_token_ids, sequence.finish_reason
        stop_reason: int | str | None = None
        if reason == "stop" and token_ids and token_ids[-1] in self.params.stop_token_ids:
            stop_reason = token_ids[-1]
        watch = self.watches.get(sequence.id)
        if watch is not None and watch.found is not None:
            token_ids, text, reason, stop_reason = token_ids[: watch.count], watch.text, "stop", watch.found
        else:
            spoken = token_ids[:-1] if reason == "stop" else token_ids
            text = tokenizer.decode(spoken) if tokenizer else ""
        logprobs = tuple(sequence.logprobs[: len(token_ids)])
        return Completion(index, tuple(token_ids), text, reason, stop_reason, logprobs)


def run_jobs(loop: EngineLoop, jobs: Row[Job]) -> None:
    """Run ``jobs`` to their ends; after a failure, or an interrupt, nothing of them is left in the engine."""
    try:
        for job in jobs:
            for sequence in job.sequences:
                loop.scheduler.add(sequence)
        watched = [job for job in jobs if job.watches]
        for _ in loop.run():
            for job in watched:
                job.watch(loop)
    except BaseException:
        _abandon(loop, jobs)
        raise


def _abandon(loop: EngineLoop, jobs: Iterable[Job]) -> None:
    for job in jobs:
        for sequence in job.sequences:
            loop.scheduler.abort(sequence.id)
    # What broke the loop may break it again: the first reason is the one to tell.
    with contextlib.suppress(Exception):
        for _ in loop.run():
            pass

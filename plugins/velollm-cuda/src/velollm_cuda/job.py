"""One prompt on its way through the engine: its sequences, and when each of them has said enough."""

from __future__ import annotations

from collections.abc import Sequence as Row
from threading import Event

from attrs import define, evolve, field

from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import VeloError
from velollm_cuda.answer import AnswerText
from velollm_cuda.output import Completion, Generation
from velollm_cuda.params import SamplingParams
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
    texts: dict[str, AnswerText] = field(init=False, factory=dict)

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
                detokenizer = self.tokenizer.detokenizer()
                self.texts[sequence.id] = AnswerText(detokenizer, self.params.stop, self.params.min_tokens)

    def watch(self, loop: EngineLoop) -> None:
        """Read what is new, and end the sequences whose text holds a stop string."""
        for sequence in self.sequences:
            text = self.texts[sequence.id]
            text.feed(sequence.token_ids[sequence.num_prompt_tokens + text.count :])
            if text.found is not None:
                loop.scheduler.abort(sequence.id)

    def spoken(self, sequence: Sequence) -> list[int]:
        """The tokens whose text is the answer's: all but one that stopped it."""
        token_ids = sequence.output_token_ids
        return token_ids[:-1] if sequence.finish_reason == "stop" else token_ids

    def completion(self, index: int, text: str) -> Completion:
        """What came of one sequence; ``text`` is that of its `spoken` tokens."""
        sequence = self.sequences[index]
        token_ids, reason = sequence.output_token_ids, sequence.finish_reason
        stop_reason: int | str | None = None
        if reason == "stop" and token_ids and token_ids[-1] in self.params.stop_token_ids:
            stop_reason = token_ids[-1]
        read = self.texts.get(sequence.id)
        if read is not None and read.found is not None:
            token_ids, text, reason, stop_reason = token_ids[: read.count], read.text, "stop", read.found
        logprobs = tuple(sequence.logprobs[: len(token_ids)])
        top = tuple(map(dict, sequence.alternatives[: len(token_ids)]))
        return Completion(index, tuple(token_ids), text, reason, stop_reason, logprobs, top)


def finished(jobs: Row[Job], tokenizer: Tokenizer | None) -> list[Generation]:
    """What came of each job; the texts are decoded together, none without a tokenizer."""
    spoken = [job.spoken(sequence) for job in jobs for sequence in job.sequences]
    texts = iter(tokenizer.decode_all(spoken) if tokenizer else [""] * len(spoken))
    return [
        Generation(
            job.prompt,
            tuple(job.token_ids),
            tuple(job.completion(index, next(texts)) for index in range(len(job.sequences))),
            job.sequences[0].num_cached,
        )
        for job in jobs
    ]


def run_jobs(loop: EngineLoop, jobs: Row[Job], stop: Event) -> None:
    """Run ``jobs`` to their ends, or until ``stop`` is set; nothing of them is left in the engine.

    Raises:
        VeloError: the engine refuses one of them; none has run then.
    """
    try:
        for job in jobs:
            for sequence in job.sequences:
                loop.scheduler.add(sequence)
    except VeloError:
        _abort(loop, jobs)
        raise
    watched = [job for job in jobs if job.texts]
    for _ in loop.run():
        for job in watched:
            job.watch(loop)
        if stop.is_set():
            _abort(loop, jobs)


def _abort(loop: EngineLoop, jobs: Row[Job]) -> None:
    for job in jobs:
        for sequence in job.sequences:
            loop.scheduler.abort(sequence.id)

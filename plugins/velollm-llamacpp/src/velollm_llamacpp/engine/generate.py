"""Answering a list of prompts, each as soon as there is room."""

from __future__ import annotations

import time
from collections.abc import Sequence as Row

from attrs import evolve, frozen

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.sequence import FinishReason, Sequence
from velollm_llamacpp.engine.engine import Engine


@frozen
class Answer:
    """One answer; ``cached_tokens`` of the prompt's came from the prefix cache."""

    prompt: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    finish_reason: FinishReason | None


@frozen
class Generation:
    """All answers, and what they took. ``cache_bytes`` is llama.cpp's KV buffer, ``seconds`` without the loading."""

    answers: tuple[Answer, ...]
    seconds: float
    cache_bytes: int
    preemptions: int
    recomputed_tokens: int


def generate(engine: Engine, prompts: Row[str], sampling: SamplingParams) -> Generation:
    """Answer ``prompts`` side by side, in their order.

    Raises:
        OutOfBlocks: a prompt and its answer are longer than a request may be; nothing has run then.
        BackendError: the engine's process died.
    """
    ends = frozenset() if sampling.ignore_eos else engine.text.stop_ids
    encoded = [engine.text.encode(prompt) for prompt in prompts]
    sequences = [
        Sequence(str(number), token_ids, evolve(sampling, seed=(sampling.seed or 0) + number), ends)
        for number, token_ids in enumerate(encoded)
    ]
    scheduler, begin = engine.loop.scheduler, time.perf_counter()
    try:
        for sequence in sequences:
            scheduler.add(sequence)
        for _ in engine.loop.run():
            pass
    except BaseException:
        for sequence in sequences:
            scheduler.abort(sequence.id)
        raise
    seconds = time.perf_counter() - begin
    answers = tuple(_answer(engine, prompt, each) for prompt, each in zip(prompts, sequences, strict=True))
    stats = scheduler.stats()
    return Generation(answers, seconds, engine.cache_bytes, stats.preemptions, engine.executor.recomputed_tokens)


def _answer(engine: Engine, prompt: str, sequence: Sequence) -> Answer:
    spoken = sequence.output_token_ids
    text = engine.text.decode(spoken[:-1] if sequence.finish_reason == "stop" else spoken)
    return Answer(prompt, text, sequence.num_prompt_tokens, len(spoken), sequence.num_cached, sequence.finish_reason)

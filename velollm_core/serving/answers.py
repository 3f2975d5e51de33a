"""From a request to the pieces of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from attrs import define, evolve

from velollm_core.engine.sequence import Sequence
from velollm_core.engine.streams import StreamingEngine
from velollm_core.errors import OutOfBlocks
from velollm_core.serving.asked import Asked
from velollm_core.serving.refusals import Refusal
from velollm_core.serving.stop_strings import StopStrings
from velollm_core.serving.text_model import TextModel
from velollm_core.serving.token_logprob import TokenLogprob

Reason = Literal["stop", "length"]
LETTERS_A_TOKEN = 16
"""More than a token has in any language on average."""


# Only `more` is ever changed; but there is one for each token, and to make a frozen one takes three times as long.
@define
class Piece:
    """Some more of answer ``index``; ``num_tokens`` and ``cached_tokens`` count all so far, and come with the last.

    ``logprobs`` has an entry for each token since the last piece, where they were asked for. ``more`` says that another
    piece is there already.
    """

    index: int
    text: str
    finish_reason: Reason | None = None
    num_tokens: int = 0
    cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    more: bool = False


async def make_sequences(asked: Asked, name: str, model: TextModel, max_length: int) -> list[list[Sequence]]:
    """The sequences of each prompt, the first of them the parent of the others.

    Raises:
        Refusal: a prompt is empty, or a token id none of the model's.
        OutOfBlocks: a prompt leaves no room for an answer.
    """
    prompts = await _read(asked, model, max_length)
    families = []
    for number, prompt in enumerate(prompts):
        if not prompt:
            which = f"prompt {number} of {len(prompts)}" if len(prompts) > 1 else "the prompt"
            raise Refusal(
                f"{which} is empty: it needs at least one token", param="messages" if asked.is_chat else "prompt"
            )
        room = max_length - len(prompt)
        if room < 1:
            raise OutOfBlocks(
                f"the prompt has {len(prompt)} tokens, and {max_length} is the most for prompt and answer together"
            )
        sampling = evolve(asked.sampling, max_tokens=room if asked.max_tokens is None else asked.max_tokens)
        family: list[Sequence] = []
        for choice in range(asked.n):
            family.append(
                Sequence(
                    f"{name}-{number}-{choice}",
                    prompt,
                    evolve(sampling, seed=(sampling.seed or 0) + choice),
                    asked.stop_token_ids | (frozenset() if sampling.ignore_eos else model.stop_ids),
                    asked.priority,
                    family[0] if family else None,
                    asked.cache_salt,
                    asked.use_cache,
                )
            )
        families.append(family)
    return families


async def answer(
    engine: StreamingEngine, sequence: Sequence, model: TextModel, index: int, leader: Sequence | None = None
) -> AsyncGenerator[Piece, None]:
    """The pieces of one answer; the last has a finish reason. ``leader`` is the first sequence of the same request."""
    text, stops = model.detokenizer(), StopStrings(sequence.sampling.stop)
    least, count = sequence.sampling.min_tokens, 0
    logprobs: list[TokenLogprob] = []
    async with aclosing(engine.stream(sequence, leader)) as batches:
        async for batch in batches:
            shown, first = "", count
            for token in batch.token_ids:
                count += 1
                if batch.logprobs:
                    at = count - first - 1
                    ranking = batch.alternatives[at] if batch.alternatives else ()
                    logprobs.append(TokenLogprob.of(token, batch.logprobs[at], model, ranking))
                # The token that ends an answer is no part of its text.
                if token not in sequence.stop_ids or count <= least:
                    read = stops.feed if count > least else stops.overlook
                    shown += read(text.feed((token,)))
                if stops.found:
                    yield Piece(index, shown, "stop", count, sequence.num_cached, tuple(logprobs))
                    return
            if batch.finish_reason is None:
                if shown:
                    yield Piece(index, shown, logprobs=tuple(logprobs))
                    logprobs.clear()
                continue
            shown += stops.overlook(text.finish())
            reason: Reason = "length" if batch.finish_reason == "length" else "stop"
            yield Piece(index, shown + stops.finish(), reason, count, sequence.num_cached, tuple(logprobs))


def answer_all(
    engine: StreamingEngine, families: list[list[Sequence]], model: TextModel
) -> AsyncGenerator[Piece, None]:
    """The pieces of all answers as they come; closing it ends every sequence."""
    sequences = [sequence for family in families for sequence in family]
    if len(sequences) == 1:
        return answer(engine, sequences[0], model, 0)
    return _side_by_side(engine, sequences, model)


async def _side_by_side(
    engine: StreamingEngine, sequences: list[Sequence], model: TextModel
) -> AsyncGenerator[Piece, None]:
    # With one place for each, answers wait for a slow reader, who then finds several tokens in a piece.
    queue: asyncio.Queue[Piece | Exception] = asyncio.Queue(len(sequences))
    tasks = [
        asyncio.create_task(_forward(answer(engine, sequence, model, index, sequences[0]), queue))
        for index, sequence in enumerate(sequences)
    ]
    going = len(tasks)
    try:
        while going:
            for piece in await _all_there(queue):
                if isinstance(piece, Exception):
                    raise piece
                going -= piece.finish_reason is not None
                yield piece
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _all_there(queue: asyncio.Queue[Piece | Exception]) -> list[Piece | Exception]:
    found = [await queue.get()]
    while not queue.empty():
        if isinstance(found[-1], Piece):
            found[-1].more = True
        found.append(queue.get_nowait())
    return found


async def _forward(pieces: AsyncGenerator[Piece, None], queue: asyncio.Queue[Piece | Exception]) -> None:
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                await queue.put(piece)
    except Exception as error:
        await queue.put(error)
        raise


async def _read(asked: Asked, model: TextModel, max_length: int) -> list[list[int]]:
    has_text = asked.is_chat or any(isinstance(prompt, str) for prompt in asked.prompts)
    if not has_text:
        return _encode(asked, model, max_length)
    # Tokenising a long prompt takes a while: others go on meanwhile.
    return await asyncio.to_thread(_encode, asked, model, max_length)


def _refuse_far_too_long(text: str, model: TextModel, max_length: int) -> None:
    """Know by its beginning that ``text`` cannot fit: to read megabytes takes a hundred times their memory."""
    beginning = text[: LETTERS_A_TOKEN * max_length]
    # Where the text was cut its tokens may be others, but not as many as this leaves room for.
    if len(beginning) < len(text) and len(model.encode(beginning)) > 2 * max_length:
        raise OutOfBlocks(
            f"the prompt has more than {2 * max_length} tokens, and {max_length} is the most for prompt and answer"
            " together"
        )


def _encode(asked: Asked, model: TextModel, max_length: int) -> list[list[int]]:
    if asked.is_chat:
        for message in asked.messages:
            # A template may leave out what others said.
            if message.role == "user":
                _refuse_far_too_long(message.content, model, max_length)
        return [model.chat(asked.messages, **asked.switches)]
    prompts = []
    for prompt in asked.prompts:
        if isinstance(prompt, str):
            _refuse_far_too_long(prompt, model, max_length)
        tokens = model.encode(prompt) if isinstance(prompt, str) else list(prompt)
        if tokens and max(tokens) >= model.vocab_size:
            raise Refusal(f"a token id of the prompt is not below {model.vocab_size}", param="prompt")
        prompts.append(tokens)
    return prompts

"""One request to a model, and the pieces its answer comes in."""

from __future__ import annotations

from attrs import frozen

MOST_RANKED = 20
"""The most `SamplingParams.top_logprobs`, as OpenAI has it."""


@frozen
class SamplingParams:
    """How tokens are chosen. ``temperature`` 0 is greedy; ``seed`` None lets the server choose.

    ``max_tokens`` bounds the answer; with ``ignore_eos`` exactly that many are produced where the server can. No token
    ends it, and no stop string, before ``min_tokens`` others are there.
    ``repetition_penalty`` divides the logits of tokens seen in prompt and answer; ``frequency_penalty`` is subtracted
    for each time a token was produced, ``presence_penalty`` once. ``logprobs`` asks for the log probability of each
    token produced, and of its runner-up where the server tells it; ``top_logprobs`` for those of so many of the
    likeliest beside each, where an engine of VeloLLM's own runs.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = 0
    min_tokens: int = 0
    ignore_eos: bool = False
    stop: tuple[str, ...] = ()
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: bool = False
    top_logprobs: int = 0


@frozen
class Message:
    """One turn of a chat; ``role`` is ``system``, ``user`` or ``assistant``."""

    role: str
    content: str


@frozen
class Request:
    """What is asked of ``model``: a text prompt, or ``messages`` for the chat endpoint where they are given.

    ``cache_prompt`` False asks the server not to reuse an earlier prompt's cache, where it can be asked.
    """

    model: str
    prompt: str = ""
    messages: tuple[Message, ...] = ()
    sampling: SamplingParams = SamplingParams()
    cache_prompt: bool = True


@frozen
class Usage:
    """The server's own count of a request; ``None`` is unknown. Seconds are the server's clock, not ours.

    ``cached_tokens`` are prompt tokens answered from the prefix cache; ``draft_tokens`` and ``accepted_tokens``
    belong to speculative decoding.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    load_seconds: float | None = None
    draft_tokens: int | None = None
    accepted_tokens: int | None = None


@frozen
class Chunk:
    """One piece of a streamed answer. A chunk is not a token: ``num_tokens`` says how many, where the server does.

    ``usage`` and ``finish_reason`` come with (or after) the last text. ``margin`` is by how much, in ln of probability
    (which is in logits), the likeliest token led over the next where the chunk's first one was chosen; None unless
    `SamplingParams.logprobs` asked for it and the server tells.
    """

    text: str = ""
    reasoning: str = ""
    num_tokens: int | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    margin: float | None = None

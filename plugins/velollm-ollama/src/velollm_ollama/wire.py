"""Requests and answers in Ollama's own words: pure functions, each trap of the interface handled once."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from velollm_core.backends.request import Chunk, Usage
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.request import Request, SamplingParams

KEEP_ALIVE: Final = "30m"
"""What every request asks for, so that no model unloads between two phases of a measurement."""

GENERATE, CHAT = "/api/generate", "/api/chat"
NANOSECOND: Final = 1e-9
# No tokenizer in use packs more bytes of plain prompt into a token on average, not even for one repeated word.
_MOST_BYTES_A_TOKEN: Final = 24


def path(request: Request) -> str:
    """The native endpoints: OpenAI's interface cannot carry options, and puts a template around a plain prompt."""
    return CHAT if request.messages else GENERATE


def payload(request: Request) -> dict[str, Any]:
    """``request`` for Ollama.

    ``raw`` leaves the prompt as it is, ``think`` off keeps thinking models comparable, ``truncate`` off makes a prompt
    that does not fit an error instead of being cut without a word. No load-time option is sent: each would reload
    the model.

    Raises:
        BackendError: no tokens were asked for, which Ollama would answer with endless ones.
    """
    if request.sampling.max_tokens < 1:
        raise BackendError("ollama: max_tokens must be at least 1: it takes 0 for no end at all", kind="request")
    body: dict[str, Any] = {
        "model": request.model,
        "stream": True,
        "think": False,
        "truncate": False,
        "keep_alive": KEEP_ALIVE,
        "options": options(request.sampling),
        # Older servers pass over what they do not know.
        **({"logprobs": True, "top_logprobs": 2} if request.sampling.logprobs else {}),
    }
    if request.messages:
        body["messages"] = [{"role": message.role, "content": message.content} for message in request.messages]
    else:
        body |= {"prompt": request.prompt, "raw": True}
    return body


def options(sampling: SamplingParams) -> dict[str, Any]:
    """Every sampling value spelled out, as defaults differ between versions. The end token cannot be ignored."""
    found: dict[str, Any] = {
        "num_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": 1.0,
    }
    if sampling.seed is not None:
        found["seed"] = sampling.seed
    if sampling.stop:
        found["stop"] = list(sampling.stop)
    return found


def chunk(event: Mapping[str, Any]) -> Chunk | None:
    """One line of the answer. Zeros are left out of the last one, so a missing count there is 0."""
    message = event.get("message") or {}
    text = _text(event.get("response") or message.get("content") or "")
    reasoning = _text(event.get("thinking") or message.get("thinking") or "")
    if not event.get("done"):
        return Chunk(text, reasoning, margin=_margin(event)) if text or reasoning else None
    return Chunk(text, reasoning, None, event.get("done_reason") or "stop", usage(event))


def usage(event: Mapping[str, Any]) -> Usage:
    """The counts of the last line. Durations come in nanoseconds.

    ``eval_duration`` starts at the first token. ``prompt_eval_count`` counts cached tokens too; how many those were is
    told from 0.33.3 on.
    """
    cached = event.get("prompt_eval_cached_count")
    return Usage(
        prompt_tokens=_count(event.get("prompt_eval_count")),
        completion_tokens=_count(event.get("eval_count")),
        cached_tokens=None if cached is None else _count(cached),
        prefill_seconds=_count(event.get("prompt_eval_duration")) * NANOSECOND,
        decode_seconds=_count(event.get("eval_duration")) * NANOSECOND,
        load_seconds=_count(event.get("load_duration")) * NANOSECOND,
    )


def decode_rate(usage: Usage) -> float | None:
    """Tokens a second after the first one; None for a single token, whose duration says nothing."""
    if not usage.completion_tokens or usage.completion_tokens < 2 or not usage.decode_seconds:
        return None
    return (usage.completion_tokens - 1) / usage.decode_seconds


def was_cut(request: Request, usage: Usage) -> bool:
    """Whether the server counted so few prompt tokens that it must have cut the prompt.

    Servers that do not know ``truncate`` ignore it.
    """
    text = request.prompt or "".join(message.content for message in request.messages)
    return usage.prompt_tokens is not None and len(text.encode()) > _MOST_BYTES_A_TOKEN * (usage.prompt_tokens + 1)


def plain_reason(text: str) -> str:
    """An error's own words where Ollama passes on its child's JSON as a text inside its message."""
    start = text.find('{"error"')
    if start < 0:
        return text
    try:
        inner = json.loads(text[start:])["error"]
        return text[:start] + str(inner["message"])
    except (ValueError, KeyError, TypeError):
        return text


def _margin(event: Mapping[str, Any]) -> float | None:
    logprobs = event.get("logprobs")
    likeliest: Sequence[Mapping[str, float]] = (logprobs[0].get("top_logprobs") or ()) if logprobs else ()
    return likeliest[0]["logprob"] - likeliest[1]["logprob"] if len(likeliest) > 1 else None


def _count(value: object) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"a count that is {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text that is not text")
    return value

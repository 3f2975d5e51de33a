"""llama-server's own ``/completion``: its words for a request, and its events in ours. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from velollm_core.backends.openai import seconds
from velollm_core.backends.request import Chunk, Usage

if TYPE_CHECKING:
    from velollm_core.backends.request import Request

FINISH = {"limit": "length", "eos": "stop", "word": "stop"}
RANDOM_SEED = -1


def payload(request: Request) -> dict[str, Any]:
    """``request`` with every sampling value spelled out; tokens come with the text, so that they can be counted."""
    sampling = request.sampling
    return {
        "prompt": request.prompt,
        "n_predict": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "seed": RANDOM_SEED if sampling.seed is None else sampling.seed,
        "stop": list(sampling.stop),
        "ignore_eos": sampling.ignore_eos,
        "cache_prompt": request.cache_prompt,
        "return_tokens": True,
        "stream": True,
        # The token itself and its runner-up; asking costs the server a pass over the vocabulary for each token.
        **({"n_probs": 2} if sampling.logprobs else {}),
    }


def is_event(event: Mapping[str, Any]) -> bool:
    """Whether ``event`` is one of ``/completion``, not of the OpenAI endpoints."""
    return "content" in event and "choices" not in event


def chunk(event: Mapping[str, Any]) -> Chunk | None:
    """One event; the last one brings the counts and the server's clock. None for news of the prompt's progress."""
    if "prompt_progress" in event:
        return None
    text = event["content"]
    if not isinstance(text, str):
        raise TypeError("text that is not text")
    if not event.get("stop"):
        return Chunk(text, num_tokens=len(event.get("tokens") or ()), margin=_margin(event))
    reason = FINISH.get(str(event.get("stop_type")), "stop")
    return Chunk(text, num_tokens=0, finish_reason=reason, usage=usage(event))


def _margin(event: Mapping[str, Any]) -> float | None:
    probabilities = event.get("completion_probabilities")
    likeliest: Sequence[Mapping[str, float]] = probabilities[0]["top_logprobs"] if probabilities else ()
    return likeliest[0]["logprob"] - likeliest[1]["logprob"] if len(likeliest) > 1 else None


def usage(event: Mapping[str, Any]) -> Usage:
    """The server's counts of a whole request."""
    timings: Mapping[str, Any] = event.get("timings") or {}
    return Usage(
        prompt_tokens=event.get("tokens_evaluated"),
        completion_tokens=event.get("tokens_predicted"),
        cached_tokens=timings.get("cache_n"),
        prefill_seconds=seconds(timings.get("prompt_ms")),
        decode_seconds=seconds(timings.get("predicted_ms")),
        draft_tokens=timings.get("draft_n"),
        accepted_tokens=timings.get("draft_n_accepted"),
    )

"""What the engine gives back for one prompt."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from velollm_core.engine.sequence import FinishReason


@frozen
class Completion:
    """One answer. ``token_ids`` end with the token that stopped it; ``text`` leaves that, and a stop string, out.

    ``finish_reason`` is ``stop`` or ``length``; ``stop_reason`` the stop string or the stop token that was asked for,
    None for the model's own end of text. ``logprobs`` holds one for each token where they were asked for, and
    ``top_logprobs`` the likeliest tokens in its place, with theirs.
    """

    index: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason | None
    stop_reason: int | str | None = None
    logprobs: tuple[float, ...] = ()
    top_logprobs: tuple[Mapping[int, float], ...] = ()


@frozen
class Generation:
    """The answers to one prompt: ``outputs`` has ``n`` of them.

    ``prompt`` is None where token ids were given. ``num_cached_tokens`` of the prompt came from the prefix cache.
    """

    prompt: str | None
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[Completion, ...]
    num_cached_tokens: int = 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        """The first answer's tokens."""
        return self.outputs[0].token_ids

    @property
    def text(self) -> str:
        """The first answer's text."""
        return self.outputs[0].text

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the first answer ended."""
        return self.outputs[0].finish_reason

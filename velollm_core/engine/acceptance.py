"""What a sequence takes in and what it refuses: the rules at its beginning and at its end."""

from __future__ import annotations

from collections.abc import Iterable

from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.sequence import FinishReason, Sequence
from velollm_core.errors import OutOfBlocks, VeloError


def check_limits(sequence: Sequence, limits: SchedulerLimits) -> None:
    """Refuse what can never run.

    Raises:
        OutOfBlocks: prompt and answer together are longer than a sequence may be.
        VeloError: there is no prompt, or no token is asked for.
    """
    wanted = sequence.sampling.max_tokens
    if not sequence.num_prompt_tokens or wanted < 1:
        raise VeloError(f"request {sequence.id}: needs a prompt of at least one token, and max_tokens of at least 1")
    if sequence.max_length > limits.max_model_len:
        raise OutOfBlocks(
            f"{sequence.num_prompt_tokens} prompt tokens and {wanted} to produce make {sequence.max_length}, "
            f"more than the {limits.max_model_len} that a sequence may have: shorten the prompt or lower max_tokens"
        )


def accept(sequence: Sequence, token_ids: Iterable[int]) -> FinishReason | None:
    """Append ``token_ids`` up to the one that ends the sequence; say why it ended."""
    for token in token_ids:
        sequence.token_ids.append(token)
        produced = len(sequence.token_ids) - sequence.num_prompt_tokens
        if token in sequence.stop_ids and produced > sequence.sampling.min_tokens:
            return "stop"
        if len(sequence.token_ids) >= sequence.max_length:
            return "length"
    return None

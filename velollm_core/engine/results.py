"""What came of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

from velollm_core.engine.sequence import FinishReason, Ranking


@frozen
class StepResults:
    """What one step sampled: a token id per row of logits, in the output's order.

    ``accepted`` overrides rows that speculated: the accepted drafts and the token after them. ``drafts`` proposes
    tokens for a row's next step. ``finish_reasons`` ends a row's sequence for a reason of the engine's own.
    ``logprobs`` belongs to the accepted tokens, and so do the ``alternatives``, each as pairs of token and log
    probability, likeliest first.
    """

    token_ids: Sequence[int]
    accepted: Mapping[int, tuple[int, ...]] = {}
    drafts: Mapping[int, tuple[int, ...]] = {}
    finish_reasons: Mapping[int, FinishReason] = {}
    logprobs: Mapping[int, tuple[float, ...]] = {}
    alternatives: Mapping[int, tuple[Ranking, ...]] = {}

    @property
    def is_plain(self) -> bool:
        """Whether every row is one token and nothing else."""
        return not (self.accepted or self.drafts or self.finish_reasons or self.logprobs)

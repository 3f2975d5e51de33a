"""What a scheduler may not exceed."""

from __future__ import annotations

from attrs import frozen

from velollm_core.errors import VeloError


@frozen
class SchedulerLimits:
    """Bounds of one engine, all in tokens or sequences.

    ``max_num_seqs`` run at a time; a step computes at most ``max_num_batched_tokens``; a sequence, prompt and answer,
    is at most ``max_model_len`` long. A sequence is admitted only if ``watermark`` (a share of all blocks) stays free,
    so that those already running can grow. ``max_draft_tokens`` above 0 turns on speculation. ``swap_tokens`` is how
    many tokens of KV the engine can hold outside the cache; 0 means that preemption recomputes.
    One level of priority is worth ``patience`` arrivals: a request is overtaken by at most that many later ones per
    level, so that nobody starves.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    max_model_len: int = 8192
    watermark: float = 0.01
    max_draft_tokens: int = 0
    swap_tokens: int = 0
    patience: int = 1000

    def __attrs_post_init__(self) -> None:
        if self.max_num_seqs < 1 or self.max_model_len < 2:
            raise VeloError(f"an engine needs room for one sequence of two tokens, found {self}")
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise VeloError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} is below max_num_seqs {self.max_num_seqs}: "
                "each running sequence decodes one token a step; raise the one or lower the other"
            )
        if not 0 <= self.watermark < 1 or min(self.max_draft_tokens, self.swap_tokens, self.patience) < 0:
            raise VeloError(f"watermark must be in [0, 1) and no limit negative, found {self}")

"""One sequence on its way through the engine."""

from __future__ import annotations

from enum import Enum
from typing import Literal

from attrs import define, field

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.clock import STILL, Clock

FinishReason = Literal["stop", "length", "abort", "error"]
Ranking = tuple[tuple[int, float], ...]
"""The likeliest tokens in one place, each with its log probability, likeliest first."""


class SequenceStatus(Enum):
    """Where a sequence stands. The last two are final."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    SWAPPED = "swapped"
    FINISHED = "finished"
    ABORTED = "aborted"


@define(eq=False)
class Sequence:
    """A prompt and the tokens produced for it so far.

    The caller gives the first seven fields and reads the rest; scheduler and block manager keep them.
    ``token_ids`` is the prompt, then every accepted token: it only grows. ``parent`` is a sequence with the same
    prompt, whose blocks this one shares where it can (n > 1). ``cache_salt`` keeps prefix caches apart; with
    ``use_cache`` False the prompt is computed in full, and nothing of the sequence is left in the cache.

    ``num_computed`` counts the leading tokens whose KV is in the cache or in a step in flight; ``num_retired`` those
    no longer in flight when they were last committed. ``num_cached`` are prompt tokens that came from the prefix
    cache. ``block_tables`` holds block ids per KV group; block 0 is the null block, for what left a window.
    While a sequence decodes, its ``clock`` moves ``num_computed`` on from ``base``, and it needs attention only at the
    tick when it is ``due``.
    """

    id: str
    token_ids: list[int]
    sampling: SamplingParams = field(factory=SamplingParams)
    stop_ids: frozenset[int] = frozenset()
    priority: int = 0
    parent: Sequence | None = None
    cache_salt: str = ""
    use_cache: bool = True

    num_prompt_tokens: int = field(init=False)
    max_length: int = field(init=False)
    status: SequenceStatus = field(init=False, default=SequenceStatus.WAITING)
    finish_reason: FinishReason | None = field(init=False, default=None)
    order: tuple[int, int] = field(init=False, default=(0, 0))
    base: int = field(init=False, default=0)
    clock: Clock = field(init=False, default=STILL)
    due: int = field(init=False, default=-1)
    num_retired: int = field(init=False, default=0)
    num_cached: int = field(init=False, default=0)
    num_preemptions: int = field(init=False, default=0)
    awaiting: bool = field(init=False, default=False)
    block_tables: tuple[list[int], ...] = field(init=False, default=())
    draft_token_ids: tuple[int, ...] = field(init=False, default=())
    logprobs: list[float] = field(init=False, factory=list)
    alternatives: list[Ranking] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        # A copy, since it grows. Not a converter: attrs would run one at every assignment to any field.
        self.token_ids = list(self.token_ids)
        self.num_prompt_tokens = len(self.token_ids)
        self.max_length = len(self.token_ids) + self.sampling.max_tokens

    @property
    def num_computed(self) -> int:
        """Leading tokens whose KV is in the cache or in a step in flight."""
        return self.base + self.clock.ticks

    @num_computed.setter
    def num_computed(self, value: int) -> None:
        self.base = value - self.clock.ticks

    @property
    def output_token_ids(self) -> list[int]:
        """The tokens produced so far."""
        return self.token_ids[self.num_prompt_tokens :]

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self.status in (SequenceStatus.FINISHED, SequenceStatus.ABORTED)

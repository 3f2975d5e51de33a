"""The tokens of one step on the device, and the attention that each of them needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen
from torch import Tensor, cat

from velollm_cuda.kernels import reference
from velollm_cuda.kernels.tiles import TilePlan

if TYPE_CHECKING:
    from velollm_cuda.kernels.split import SplitPlan


@frozen
class Decodes:
    """The step's first tokens, one of each sequence: slot-table ``rows [B]`` and ``lengths [B]`` with the token.

    ``plans`` holds one filled `SplitPlan` a KV group, None where `reference` runs.
    """

    rows: Tensor
    lengths: Tensor
    plans: tuple[SplitPlan, ...] | None


@frozen
class Chunks:
    """The step's other tokens: pieces of prompts, one after another. ``rows`` are their slot-table rows."""

    rows: Tensor
    plan: TilePlan


@frozen
class Batch:
    """``token_ids`` and ``positions`` ``[T]`` int64; ``slots`` ``[T]`` and ``tables`` one for each KV group.

    The decodes come first, then the chunks; either may be missing.
    """

    token_ids: Tensor
    positions: Tensor
    slots: tuple[Tensor, ...]
    tables: tuple[Tensor, ...]
    decodes: Decodes | None = None
    chunks: Chunks | None = None

    def attend(
        self, query: Tensor, key_cache: Tensor, value_cache: Tensor, group: int, *, scale: float, window: int,
        softcap: float,
    ) -> Tensor:  # fmt: skip
        """Attention of query ``[T, H, D]`` over one layer's cache."""
        count = len(self.decodes.rows) if self.decodes else 0
        parts = []
        if self.decodes:
            parts.append(
                self._decode(self.decodes, query[:count], key_cache, value_cache, group, scale, window, softcap)
            )
        if self.chunks:
            parts.append(
                self._prefill(self.chunks, query[count:], key_cache, value_cache, group, scale, window, softcap)
            )
        return parts[0] if len(parts) == 1 else cat(parts)

    def _decode(
        self, decodes: Decodes, query: Tensor, key_cache: Tensor, value_cache: Tensor, group: int, scale: float,
        window: int, softcap: float,
    ) -> Tensor:  # fmt: skip
        table = self.tables[group]
        if decodes.plans is None:
            return reference.decode_attention(
                query, key_cache, value_cache, table[decodes.rows.long()], decodes.lengths, scale=scale, window=window,
                softcap=softcap,
            )  # fmt: skip
        from velollm_cuda.kernels.decode import decode_attention

        return decode_attention(
            query, key_cache, value_cache, table, decodes.plans[group], scale=scale, softcap=softcap
        )

    def _prefill(
        self, chunks: Chunks, query: Tensor, key_cache: Tensor, value_cache: Tensor, group: int, scale: float,
        window: int, softcap: float,
    ) -> Tensor:  # fmt: skip
        table, plan = self.tables[group], chunks.plan
        if query.device.type != "cuda":
            return reference.prefill_attention(
                query, key_cache, value_cache, table[chunks.rows.long()], plan.lengths, plan.starts, scale=scale,
                window=window, softcap=softcap,
            )  # fmt: skip
        from velollm_cuda.kernels.prefill import prefill_attention

        return prefill_attention(
            query, key_cache, value_cache, table, plan, scale=scale, window=window, softcap=softcap
        )

"""The tokens of one step on the device, and the attention that each of them needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from attrs import frozen
from torch import Tensor, empty_like

from velollm_cuda.kernels import reference
from velollm_cuda.kernels.tiles import TilePlan

if TYPE_CHECKING:
    from velollm_cuda.kernels.split import SplitPlan


class Scaling(TypedDict):
    """What scores, and an FP8 cache's keys and values, are multiplied by; 0 is no softcap."""

    scale: float
    softcap: float
    key_scale: float
    value_scale: float


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
        softcap: float, key_scale: float = 1.0, value_scale: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Attention of query ``[T, H, D]`` over one layer's cache."""
        count = len(self.decodes.rows) if self.decodes else 0
        out, caches = empty_like(query), (key_cache, value_cache)
        options: Scaling = {"scale": scale, "softcap": softcap, "key_scale": key_scale, "value_scale": value_scale}
        if self.decodes:
            self._decode(self.decodes, out[:count], query[:count], caches, group, window, options)
        if self.chunks:
            self._prefill(self.chunks, out[count:], query[count:], caches, group, window, options)
        return out

    def _decode(
        self, decodes: Decodes, out: Tensor, query: Tensor, caches: tuple[Tensor, Tensor], group: int, window: int,
        options: Scaling,
    ) -> None:  # fmt: skip
        table = self.tables[group]
        if decodes.plans is None:
            rows = table[decodes.rows.long()]
            out.copy_(reference.decode_attention(query, *caches, rows, decodes.lengths, window=window, **options))
            return
        from velollm_cuda.kernels.decode import decode_attention

        decode_attention(query, *caches, table, decodes.plans[group], out=out, **options)

    def _prefill(
        self, chunks: Chunks, out: Tensor, query: Tensor, caches: tuple[Tensor, Tensor], group: int, window: int,
        options: Scaling,
    ) -> None:  # fmt: skip
        table, plan = self.tables[group], chunks.plan
        if query.device.type != "cuda":
            rows = table[chunks.rows.long()]
            out.copy_(
                reference.prefill_attention(query, *caches, rows, plan.lengths, plan.starts, window=window, **options)
            )
            return
        from velollm_cuda.kernels.prefill import prefill_attention

        prefill_attention(
            query, *caches, table, plan, window=window, out=out, beside=self.decodes is not None, **options
        )

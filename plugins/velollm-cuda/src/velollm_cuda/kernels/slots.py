"""The state of a decode step, derived and advanced on the device: a replayed graph needs nothing from the host.

Row ``r`` of the slot table belongs to one sequence. The last row is nobody's: a graph's padding points at it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.overlap import follow, overlapping

BLOCK = 64


def next_slots(rows: Tensor, lengths: Tensor, table: Tensor, block_size: int, slots: Tensor) -> None:
    """Where the next token of each of ``rows [B]`` goes: ``slots [B]`` int64, -1 for padding; see `reference`."""
    batch = len(rows)
    _next_slots[(triton.cdiv(batch, BLOCK),)](
        rows, lengths, table, slots, batch, len(lengths) - 1, table.stride(0), PAGE=block_size, BLOCK=BLOCK, num_warps=1,
        **overlapping(rows.device),
    )  # fmt: skip


def begin_decode(
    rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, positions: Tensor, grown: Tensor
) -> None:
    """Each row's last token, its position, and its length with it; see `reference`."""
    batch = len(rows)
    _begin[(triton.cdiv(batch, BLOCK),)](
        rows, last_tokens, lengths, tokens, positions, grown, batch, len(lengths) - 1, BLOCK=BLOCK, num_warps=1,
        **overlapping(rows.device),
    )  # fmt: skip


def end_decode(rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, grown: Tensor) -> None:
    """Keep each row's new token and length; see `reference`."""
    batch = len(rows)
    _end[(triton.cdiv(batch, BLOCK),)](
        rows, last_tokens, lengths, tokens, grown, batch, len(lengths) - 1, BLOCK=BLOCK, num_warps=1,
        **overlapping(rows.device),
    )  # fmt: skip


@triton.jit
def _next_slots(
    rows, lengths, table, slots, batch, nobody, stride, PAGE: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr
):
    follow(OVERLAP)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + index, mask=index < batch, other=0)
    real = (index < batch) & (row < nobody)
    position = tl.load(lengths + row, mask=real, other=0)
    block = tl.load(table + row.to(tl.int64) * stride + position // PAGE, mask=real, other=0).to(tl.int64)
    tl.store(slots + index, tl.where(real, block * PAGE + position % PAGE, -1), mask=index < batch)


@triton.jit
def _begin(
    rows, last_tokens, lengths, tokens, positions, grown, batch, nobody, BLOCK: tl.constexpr, OVERLAP: tl.constexpr
):
    follow(OVERLAP)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < batch
    row = tl.load(rows + index, mask=inside, other=0)
    position = tl.load(lengths + row, mask=inside & (row < nobody), other=0)
    tl.store(tokens + index, tl.load(last_tokens + row, mask=inside, other=0), mask=inside)
    tl.store(positions + index, position.to(tl.int64), mask=inside)
    tl.store(grown + index, tl.where(row < nobody, position + 1, 0), mask=inside)


@triton.jit
def _end(rows, last_tokens, lengths, tokens, grown, batch, nobody, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    follow(OVERLAP)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + index, mask=index < batch, other=0)
    real = (index < batch) & (row < nobody)
    tl.store(last_tokens + row, tl.load(tokens + index, mask=real, other=0), mask=real)
    tl.store(lengths + row, tl.load(grown + index, mask=real, other=0), mask=real)

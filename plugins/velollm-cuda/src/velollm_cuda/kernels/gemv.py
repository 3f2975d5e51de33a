"""The products of a single token: a matrix read once, in as many pieces as keep the memory busy.

cuBLAS waits for the kernel before it with its first read. Here a program asks for its first weights before it waits
(`overlap`), so that memory goes on delivering from one product to the next.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.overlap import follow, overlapping

ROWS = 4
MOST_DEPTH = 2048


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [T, K] @ weight [N, K].T + bias [N]``: cuBLAS's, but for a single token."""
    if len(x) != 1:
        return torch.nn.functional.linear(x, weight, bias)
    size, depth = weight.shape
    width = min(MOST_DEPTH, triton.next_power_of_2(depth))
    out = x.new_empty(1, size)
    _gemv[(triton.cdiv(size, ROWS),)](
        out, x, weight, weight if bias is None else bias, size, depth, weight.stride(0),
        BIAS=bias is not None, ROWS=ROWS, DEPTH=width, num_warps=max(1, width // 256), **overlapping(x.device),
    )  # fmt: skip
    return out


@triton.jit
def _gemv(
    out, x, weight, bias, size, depth, stride,
    BIAS: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, DEPTH)
    there = (row < size)[:, None]
    place = weight + row.to(tl.int64)[:, None] * stride + column[None, :]
    weights = tl.load(place, mask=there & (column < depth)[None, :], other=0.0)
    follow(OVERLAP)
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, depth, DEPTH):
        # The next weights are asked for before these are used.
        after = start + DEPTH + column
        ahead = tl.load(place + start + DEPTH, mask=there & (after < depth)[None, :], other=0.0)
        values = tl.load(x + start + column, mask=start + column < depth, other=0.0)
        total += tl.sum(weights.to(tl.float32) * values.to(tl.float32)[None, :], 1)
        weights = ahead
    if BIAS:
        total += tl.load(bias + row, mask=row < size, other=0.0).to(tl.float32)
    tl.store(out + row, total.to(out.dtype.element_ty), mask=row < size)

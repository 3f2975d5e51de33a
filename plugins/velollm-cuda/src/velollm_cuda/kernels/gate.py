"""The gate of a feed-forward layer: SiLU or tanh-GELU of one half, times the other."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.overlap import follow, overlapping

BLOCK = 1024


def silu_mul(x: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``x [T, 2N] = [gate, up]``; see `reference`."""
    return _gate(x, gelu=False)


def gelu_mul(x: Tensor) -> Tensor:
    """``gelu_tanh(gate) * up`` of ``x [T, 2N] = [gate, up]``; see `reference`."""
    return _gate(x, gelu=True)


def _gate(x: Tensor, *, gelu: bool) -> Tensor:
    tokens, size = x.shape[0], x.shape[1] // 2
    out = x.new_empty(tokens, size)
    grid = (tokens, triton.cdiv(size, BLOCK))
    _gated[grid](out, x, size, GELU=gelu, BLOCK=BLOCK, num_warps=4, **overlapping(x.device))
    return out


@triton.jit
def _gated(out, x, size, GELU: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr):
    follow(OVERLAP)
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    gate = tl.load(x + token * 2 * size + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + token * 2 * size + size + column, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        inner = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)
        gate *= 1 / (1 + tl.exp(-inner))
    else:
        gate *= 1 / (1 + tl.exp(-gate))
    tl.store(out + token * size + column, (gate * up).to(out.dtype.element_ty), mask=inside)

"""Choosing tokens without a softmax: the Gumbel-max trick, greedy where the temperature is zero.

argmax(logits / t + g) with g = -log(-log(1 - u)) draws from softmax(logits / t) (Gumbel, 1954). The noise comes from a
counter-based generator over (seed, position, token), so a row's choice does not depend on the rows beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32, int64

from velollm_cuda.kernels.overlap import follow, overlapping

BLOCK = 4096


def gumbel_sample(
    logits: Tensor, temperature: Tensor, seeds: Tensor, positions: Tensor, floors: Tensor | None = None
) -> Tensor:
    """One token a row: logits ``[B, V]``, temperature ``[B]`` fp32, seeds and positions ``[B]`` int64; int64 ``[B]``.

    Of equal greedy maxima the lowest token wins. Logits below ``floors [B]`` fp32 are never drawn.
    """
    batch, size = logits.shape
    blocks = triton.cdiv(size, BLOCK)
    best = logits.new_empty(batch, blocks, dtype=float32)
    where = logits.new_empty(batch, blocks, dtype=int64)
    out = logits.new_empty(batch, dtype=int64)
    _best[(batch, blocks)](
        best, where, logits, temperature, seeds, positions, temperature if floors is None else floors, size,
        logits.stride(0), blocks, FLOORS=floors is not None, BLOCK=BLOCK, num_warps=8,
        **overlapping(logits.device),
    )  # fmt: skip
    _pick[(batch,)](out, best, where, blocks, BLOCKS=triton.next_power_of_2(blocks), **overlapping(logits.device))
    return out


@triton.jit
def _gumbel(uniform):
    """-log(-log(1 - u)): what decides is a small u, which has more digits than a u near one; 0 is half the next."""
    u = tl.maximum(uniform, 2.3283064e-10)
    wait = tl.where(u < 0.015625, u + u * u * (0.5 + u * 0.33333333), -0.6931471805599453 * tl.log2(1 - u))
    return -0.6931471805599453 * tl.log2(wait)


@triton.jit
def _best(
    best, where, logits, temperature, seeds, positions, floors, size, stride, blocks,
    FLOORS: tl.constexpr, BLOCK: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    follow(OVERLAP)
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    token = block * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(logits + row * stride + token, mask=token < size, other=float("-inf")).to(tl.float32)
    heat = tl.load(temperature + row)
    if heat > 0:
        seed = tl.load(seeds + row) + tl.load(positions + row) * 0x9E3779B1
        # One turn of Philox gives four numbers, and seven rounds of it are as good as random.
        draw = block * (BLOCK // 4) + tl.arange(0, BLOCK // 4)
        a, b, c, d = tl.rand4x(seed, draw, 7)
        drawn = value * (1 / heat) + _gumbel(tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), [BLOCK]))
        if FLOORS:
            drawn = tl.where(value >= tl.load(floors + row), drawn, float("-inf"))
        value = drawn
    peak = tl.max(value, 0)
    tl.store(best + row * blocks + block, peak)
    tl.store(where + row * blocks + block, tl.min(tl.where(value == peak, token, size), 0).to(tl.int64))


@triton.jit
def _pick(out, best, where, blocks, BLOCKS: tl.constexpr, OVERLAP: tl.constexpr):
    follow(OVERLAP)
    row, block = tl.program_id(0), tl.arange(0, BLOCKS)
    inside = block < blocks
    value = tl.load(best + row * blocks + block, mask=inside, other=float("-inf"))
    first = tl.min(tl.where(inside & (value == tl.max(value, 0)), block, BLOCKS), 0)
    tl.store(out + row, tl.load(where + row * blocks + tl.minimum(first, blocks - 1)))

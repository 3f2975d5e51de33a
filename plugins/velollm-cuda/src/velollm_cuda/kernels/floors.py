"""Top-k, top-p and min-p as one number a row: the lowest logit that may be drawn.

Found by bisection instead of sorting: a pass over a row of logits costs no more than reading it from the L2 cache.
Equal logits stay or go together.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32

BLOCK = 4096
PASSES = 26


def floors(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The lowest logit of each row that its rules leave in, fp32 ``[B]``; see `reference`."""
    batch, size = logits.shape
    out = logits.new_empty(batch, dtype=float32)
    _floors[(batch,)](
        out, logits, temperature, top_k, top_p, min_p, size, logits.stride(0), PASSES=PASSES, BLOCK=BLOCK, num_warps=8
    )
    return out


@triton.jit
def _range(logits, size, BLOCK: tl.constexpr):
    """The largest logit, and the smallest that is finite."""
    highest = tl.full([BLOCK], float("-inf"), tl.float32)
    lowest = tl.full([BLOCK], float("inf"), tl.float32)
    for start in range(0, size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        value = tl.load(logits + token, mask=token < size, other=float("-inf")).to(tl.float32)
        highest = tl.maximum(highest, value)
        lowest = tl.where(value > float("-inf"), tl.minimum(lowest, value), lowest)
    return tl.max(highest, 0), tl.min(lowest, 0)


@triton.jit
def _count(logits, size, floor, BLOCK: tl.constexpr):
    """How many logits are at ``floor`` or above."""
    count = tl.zeros([BLOCK], tl.int32)
    for start in range(0, size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        value = tl.load(logits + token, mask=token < size, other=float("-inf")).to(tl.float32)
        count += (value >= floor).to(tl.int32)
    return tl.sum(count, 0)


@triton.jit
def _mass(logits, size, floor, peak, cold, BLOCK: tl.constexpr):
    """The weight of the logits at ``floor`` or above, where ``peak`` weighs one; ``cold`` is log2(e) / temperature."""
    mass = tl.zeros([BLOCK], tl.float32)
    for start in range(0, size, BLOCK):
        token = start + tl.arange(0, BLOCK)
        value = tl.load(logits + token, mask=token < size, other=float("-inf")).to(tl.float32)
        mass += tl.where(value >= floor, tl.exp2((value - peak) * cold), 0.0)
    return tl.sum(mass, 0)


@triton.jit
def _floors(out, logits, temperature, top_k, top_p, min_p, size, stride, PASSES: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    mine = logits + row * stride
    heat, count = tl.load(temperature + row), tl.load(top_k + row)
    share, least = tl.load(top_p + row), tl.load(min_p + row)
    floor = tl.full([], float("-inf"), tl.float32)
    if heat > 0 and (count > 0 or share < 1 or least > 0):
        peak, low = _range(mine, size, BLOCK)
        # What lies 88 temperatures below the likeliest has a chance that fp32 cannot tell from none.
        low = tl.maximum(low, peak - 88 * heat)
        if count > 0:
            high = peak
            for _ in range(PASSES):
                middle = low + (high - low) * 0.5
                enough = _count(mine, size, middle, BLOCK) >= count
                low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
            # The likeliest always stays, and one pass more than `high` allows for would leave it out.
            low = tl.where(_count(mine, size, high, BLOCK) >= count, high, low)
            floor = low
        if share < 1:
            cold = 1.4426950408889634 / heat
            wanted, high = share * _mass(mine, size, floor, peak, cold, BLOCK), peak
            for _ in range(PASSES):
                middle = low + (high - low) * 0.5
                enough = _mass(mine, size, middle, peak, cold, BLOCK) >= wanted
                low, high = tl.where(enough, middle, low), tl.where(enough, high, middle)
            low = tl.where(_mass(mine, size, high, peak, cold, BLOCK) >= wanted, high, low)
            floor = low
        if least > 0:
            floor = tl.maximum(floor, peak + heat * 0.6931471805599453 * tl.log2(least))
    tl.store(out + row, floor)

"""Paged decode attention: one query token a sequence, split over the KV cache, merged by the last piece to arrive.

Flash decoding (Dao et al., 2023) over a block table (Kwon et al., "PagedAttention", 2023): the query heads of one KV
head are packed into the rows of one matrix product, so K and V are read once a group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.overlap import follow, overlapping
from velollm_cuda.kernels.split import MERGED, SplitPlan

LOG2_E = 1.4426950408889634


def decode_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    plan: SplitPlan,
    *,
    scale: float,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Attention of query ``[B, H, D]`` over the tokens that ``plan`` was filled for; see `reference`.

    One launch of ``K × max_items`` programs whatever the lengths, so a graph can hold it.
    """
    _, heads, size = query.shape
    block_size, kv_heads = key_cache.shape[1:3]
    group = heads // kv_heads
    out = torch.empty_like(query) if out is None else out
    warps = max(1, plan.tile // 32)
    _decode[(kv_heads, plan.items.shape[1])](
        out, query, key_cache, value_cache, tables, plan.items, plan.partial, plan.lse, plan.arrived,
        sinks if sinks is not None else query, scale * LOG2_E * key_scale, softcap * LOG2_E, value_scale,
        tables.stride(0), plan.items.shape[1], query.stride(0), query.stride(1), out.stride(0), out.stride(1),
        key_cache.stride(0), key_cache.stride(1), key_cache.stride(2),
        PAGE=block_size, GROUP=group, ROWS=max(16, triton.next_power_of_2(group)),
        HEADS=triton.next_power_of_2(group), D=size,
        WIDTH=triton.next_power_of_2(size), TILE=plan.tile, SINKS=sinks is not None, SOFTCAP=softcap > 0,
        PIECES=_merged(warps, group, size), num_warps=warps, num_stages=_stages(plan.tile, size),
        **overlapping(query.device),
    )  # fmt: skip
    return out


def _stages(tile: int, size: int) -> int:
    """Tiles under way at a time: as many as shared memory holds beside a second program's."""
    if size > 128:
        return 2
    return 4 if tile <= 32 else 3


def _merged(warps: int, group: int, size: int) -> int:
    """Pieces that the merge loads at a time: as many as leave a thread half of its registers."""
    fit = 128 * 32 * warps // (triton.next_power_of_2(group) * triton.next_power_of_2(size))
    return max(1, min(fit, MERGED))


@triton.jit
def nothing_seen(ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """The running maximum, total and accumulator before any key."""
    return tl.full([ROWS], -1e30, tl.float32), tl.zeros([ROWS], tl.float32), tl.zeros([ROWS, WIDTH], tl.float32)


@triton.jit
def _tile(
    m, total, acc, q, key_cache, value_cache, table, token, end, head_offset, scale, softcap, stride_block, stride_token,
    columns, MASKED: tl.constexpr, PAGE: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Fold the keys and values at ``token [TILE]`` into the running maximum, total and accumulator."""
    inside = token < end
    block = tl.load(table + token // PAGE, mask=inside, other=0).to(tl.int64)
    row = block * stride_block + (token % PAGE) * stride_token + head_offset
    offsets = row[:, None] + columns[None, :]
    if MASKED:
        keep = inside[:, None] & (columns < D)[None, :]
        k = tl.load(key_cache + offsets, mask=keep, other=0.0)
        v = tl.load(value_cache + offsets, mask=keep, other=0.0)
    elif D == WIDTH:
        k = tl.load(key_cache + offsets)
        v = tl.load(value_cache + offsets)
    else:
        k = tl.load(key_cache + offsets, mask=(columns < D)[None, :], other=0.0)
        v = tl.load(value_cache + offsets, mask=(columns < D)[None, :], other=0.0)
    scores = tl.dot(q, tl.trans(k.to(q.dtype))) * scale
    if SOFTCAP:
        # tanh(x) as 1 - 2 / (exp(2x) + 1): no call into the maths library.
        scores = softcap * (1 - 2 / (tl.exp2(scores / softcap * 2 * 1.4426950408889634) + 1))
    if MASKED:
        scores = tl.where(inside[None, :], scores, float("-inf"))
    peak = tl.maximum(m, tl.max(scores, 1))
    shrink = tl.exp2(m - peak)
    chance = tl.exp2(scores - peak[:, None])
    total = total * shrink + tl.sum(chance, 1)
    acc = tl.dot(chance.to(q.dtype), v.to(q.dtype), acc * shrink[:, None])
    return peak, total, acc


@triton.jit
def _merge(
    item, count, head, kv_heads, partial, lse, rows, columns,
    GROUP: tl.constexpr, D: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    """The pieces ``item`` to ``item + count`` of one sequence as one result, weighted by their log-sum-exp.

    ``rows`` are the group's heads; several pieces are loaded at a time, since each load waits for the L2 cache.
    """
    inside = rows < GROUP
    m = tl.full([rows.shape[0]], -1e30, tl.float32)
    total = tl.zeros([rows.shape[0]], tl.float32)
    acc = tl.zeros([rows.shape[0], columns.shape[0]], tl.float32)
    for start in range(0, count, PIECES):
        piece = start + tl.arange(0, PIECES)
        there = (piece < count)[:, None] & inside[None, :]
        cell = (((item + piece).to(tl.int64) * kv_heads + head) * GROUP)[:, None] + rows[None, :]
        weight = tl.load(lse + cell, mask=there, other=-1e30, cache_modifier=".cg")
        part = tl.load(
            partial + cell[:, :, None] * D + columns[None, None, :],
            mask=there[:, :, None] & (columns < D)[None, None, :], other=0.0, cache_modifier=".cg",
        )  # fmt: skip
        peak = tl.maximum(m, tl.max(weight, 0))
        shrink, share = tl.exp2(m - peak), tl.exp2(weight - peak[None, :])
        total = total * shrink + tl.sum(share, 0)
        acc = acc * shrink[:, None] + tl.sum(part * share[:, :, None], 0)
        m = peak
    return m, total, acc


@triton.jit
def _write(out, sinks, m, total, acc, head, rows, columns, value_scale, stride_head, GROUP: tl.constexpr, D: tl.constexpr, SINKS: tl.constexpr):  # fmt: skip
    """Normalise, add the sinks' share to the denominator, and store one sequence's rows of one KV head."""
    heads = head * GROUP + rows
    if SINKS:
        sink = tl.load(sinks + heads, mask=rows < GROUP, other=0.0).to(tl.float32) * 1.4426950408889634
        total += tl.exp2(sink - m)
    # An empty sequence has a total of zero and answers zeros.
    result = acc * value_scale / tl.where(total > 0, total, 1.0)[:, None]
    place = out + heads[:, None] * stride_head + columns[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=(rows < GROUP)[:, None] & (columns < D)[None, :])


@triton.jit
def _decode(
    out, query, key_cache, value_cache, tables, items, partial, lse, arrived, sinks, scale, softcap, value_scale,
    stride_table, count, stride_qb, stride_qh, stride_ob, stride_oh, stride_block, stride_token, stride_head,
    PAGE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, HEADS: tl.constexpr, D: tl.constexpr,
    WIDTH: tl.constexpr, TILE: tl.constexpr, SINKS: tl.constexpr, SOFTCAP: tl.constexpr, PIECES: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    # Heads first: the programs that run together then read neighbouring rows of the same blocks.
    item, head, kv_heads = tl.program_id(1), tl.program_id(0), tl.num_programs(0)
    row = tl.load(items + item).to(tl.int64)
    start, end = tl.load(items + count + item), tl.load(items + 2 * count + item)
    first, splits = tl.load(items + 3 * count + item), tl.load(items + 4 * count + item)
    table = tables + tl.load(items + 5 * count + item).to(tl.int64) * stride_table
    follow(OVERLAP)
    if row < 0:
        return
    rows, columns, tile = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TILE)
    keep = (rows < GROUP)[:, None] & (columns < D)[None, :]
    heads = head * GROUP + rows
    q = tl.load(query + row * stride_qb + heads[:, None] * stride_qh + columns[None, :], mask=keep, other=0.0)
    m, total, acc = nothing_seen(ROWS, WIDTH)
    whole = start + (end - start) // TILE * TILE
    offset = head * stride_head
    for token in range(start, whole, TILE):
        m, total, acc = _tile(m, total, acc, q, key_cache, value_cache, table, token + tile, end, offset, scale, softcap, stride_block, stride_token, columns, False, PAGE, D, WIDTH, SOFTCAP)  # fmt: skip
    if whole < end:
        m, total, acc = _tile(m, total, acc, q, key_cache, value_cache, table, whole + tile, end, offset, scale, softcap, stride_block, stride_token, columns, True, PAGE, D, WIDTH, SOFTCAP)  # fmt: skip
    if splits == 1:
        _write(out + row * stride_ob, sinks, m, total, acc, head, rows, columns, value_scale, stride_oh, GROUP, D, SINKS)  # fmt: skip
    else:
        cell = item.to(tl.int64) * kv_heads + head
        tl.store(lse + cell * GROUP + rows, m + tl.log2(total), mask=rows < GROUP)
        tl.store(partial + cell * GROUP * D + rows[:, None] * D + columns[None, :], acc / total[:, None], mask=keep)
        tl.debug_barrier()
        if tl.atomic_add(arrived + row * kv_heads + head, 1, sem="acq_rel") == splits - 1:
            tl.atomic_xchg(arrived + row * kv_heads + head, 0, sem="relaxed")
            mine = tl.arange(0, HEADS)
            peak, sum_all, merged = _merge(first, splits, head, kv_heads, partial, lse, mine, columns, GROUP, D, PIECES)  # fmt: skip
            _write(out + row * stride_ob, sinks, peak, sum_all, merged, head, mine, columns, value_scale, stride_oh, GROUP, D, SINKS)  # fmt: skip

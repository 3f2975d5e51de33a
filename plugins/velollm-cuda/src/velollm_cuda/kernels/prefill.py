"""Paged attention of chunks: many query tokens a sequence, causal, over the cache that already holds their keys.

Flash attention (Dao, 2023) with the block table of paged attention; the query heads of one KV head share a tile, so
that K and V are read once a group.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.decode import LOG2_E, nothing_seen
from velollm_cuda.kernels.overlap import follow, overlapping
from velollm_cuda.kernels.tiles import TilePlan


def prefill_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    plan: TilePlan,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
    out: Tensor | None = None,
    beside: bool = False,
) -> Tensor:
    """Attention of query ``[T, H, D]``, the chunks of ``plan`` one after another; see `reference`.

    ``beside`` says that `decode_attention` of the same step was launched last: neither needs the other, so this one
    begins while that one ends.
    """
    _, heads, size = query.shape
    block_size, kv_heads = key_cache.shape[1:3]
    group = heads // kv_heads
    out = torch.empty_like(query) if out is None else out
    if not len(plan.tiles):
        return out
    _prefill[(len(plan.tiles), kv_heads)](
        out, query, key_cache, value_cache, tables, plan.tiles, plan.starts, plan.lengths,
        sinks if sinks is not None else query, scale * LOG2_E * key_scale, softcap * LOG2_E, value_scale, window,
        tables.stride(0), query.stride(0), query.stride(1), out.stride(0), out.stride(1),
        key_cache.stride(0), key_cache.stride(1), key_cache.stride(2),
        PAGE=block_size, GROUP=group, ROWS=plan.rows, D=size, WIDTH=triton.next_power_of_2(size),
        TILE=_tile_keys(size, query.device), WINDOW=window > 0, SINKS=sinks is not None, SOFTCAP=softcap > 0,
        BESIDE=beside, num_warps=8 if plan.rows >= 128 else 4, num_stages=3 if plan.rows >= 128 else 2, **overlapping(query.device),
    )  # fmt: skip
    return out


def _tile_keys(size: int, device: torch.device) -> int:
    if device.type != "cuda":
        return 16
    return 32 if size > 128 else 64


@triton.jit
def _fold(
    m, total, acc, q, key_cache, value_cache, table, token, length, position, offset, scale, softcap, window,
    stride_block, stride_token, columns,
    MASKED: tl.constexpr, PAGE: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
):  # fmt: skip
    """Fold the keys and values at ``token [TILE]`` into the running state of the queries at ``position [ROWS]``."""
    block = tl.load(table + token // PAGE, mask=token < length, other=0).to(tl.int64)
    offsets = (block * stride_block + (token % PAGE) * stride_token + offset)[:, None] + columns[None, :]
    if MASKED:
        keep = (token < length)[:, None] & (columns < D)[None, :]
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
        scores = softcap * (1 - 2 / (tl.exp2(scores / softcap * 2 * 1.4426950408889634) + 1))
    if MASKED:
        seen = token[None, :] <= position[:, None]
        if WINDOW:
            seen &= token[None, :] > position[:, None] - window
        scores = tl.where(seen, scores, -1e30)
    peak = tl.maximum(m, tl.max(scores, 1))
    shrink = tl.exp2(m - peak)
    chance = tl.exp2(scores - peak[:, None])
    total = total * shrink + tl.sum(chance, 1)
    acc = tl.dot(chance.to(q.dtype), v.to(q.dtype), acc * shrink[:, None])
    return peak, total, acc


@triton.jit
def _prefill(
    out, query, key_cache, value_cache, tables, tiles, starts, lengths, sinks, scale, softcap, value_scale, window,
    stride_table, stride_qt, stride_qh, stride_ot, stride_oh, stride_block, stride_token, stride_head,
    PAGE: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
    TILE: tl.constexpr, WINDOW: tl.constexpr, SINKS: tl.constexpr, SOFTCAP: tl.constexpr,
    BESIDE: tl.constexpr, OVERLAP: tl.constexpr,
):  # fmt: skip
    if not BESIDE:
        follow(OVERLAP)
    tile, head = tl.program_id(0), tl.program_id(1)
    row, first = tl.load(tiles + 3 * tile).to(tl.int64), tl.load(tiles + 3 * tile + 1)
    if row < 0:
        if BESIDE:
            follow(OVERLAP)
        return
    begin, length = tl.load(starts + row), tl.load(lengths + row)
    chunk = tl.load(starts + row + 1) - begin
    rows, columns, keys = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TILE)
    token, heads = first + rows // GROUP, head * GROUP + rows % GROUP
    keep = ((token < chunk) & (rows < ROWS // GROUP * GROUP))[:, None] & (columns < D)[None, :]
    place, context = (begin + token).to(tl.int64), length - chunk
    q = tl.load(query + (place * stride_qt + heads * stride_qh)[:, None] + columns[None, :], mask=keep, other=0.0)
    position = context + token
    # Every query of the tile sees the keys before its first one; only the tiles past that need the mask.
    end = tl.minimum(context + first + ROWS // GROUP, length)
    low = tl.maximum(context + first - window + 1, 0) // TILE * TILE if WINDOW else 0
    whole = low if WINDOW else (context + first + 1) // TILE * TILE
    m, total, acc = nothing_seen(ROWS, WIDTH)
    table, offset = tables + tl.load(tiles + 3 * tile + 2).to(tl.int64) * stride_table, head * stride_head
    for at in range(low, whole, TILE):
        m, total, acc = _fold(m, total, acc, q, key_cache, value_cache, table, at + keys, length, position, offset, scale, softcap, window, stride_block, stride_token, columns, False, PAGE, D, WIDTH, WINDOW, SOFTCAP)  # fmt: skip
    for at in range(whole, end, TILE):
        m, total, acc = _fold(m, total, acc, q, key_cache, value_cache, table, at + keys, length, position, offset, scale, softcap, window, stride_block, stride_token, columns, True, PAGE, D, WIDTH, WINDOW, SOFTCAP)  # fmt: skip
    if SINKS:
        total += tl.exp2(tl.load(sinks + heads).to(tl.float32) * 1.4426950408889634 - m)
    target = out + (place * stride_ot + heads * stride_oh)[:, None] + columns[None, :]
    tl.store(target, (acc * value_scale / total[:, None]).to(out.dtype.element_ty), mask=keep)
    if BESIDE:
        # The end of this kernel has to mean the end of the one before.
        follow(OVERLAP)

"""Norm and rotate queries and keys, and store keys and values in their slots: one launch between two products."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from velollm_cuda.kernels.overlap import follow, overlapping

HEADS = 16


def rope_store(
    qkv: Tensor,
    cosine: Tensor,
    sine: Tensor,
    positions: Tensor,
    slots: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    heads: int,
    *,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
    epsilon: float = 1e-6,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """Queries ``[T, H, D]`` of ``qkv [T, (H + 2K) * D]``, rotated at ``positions``; see `reference`."""
    kv_heads, size = key_cache.shape[2:]
    tokens, half = len(qkv), cosine.shape[-1]
    query = qkv.new_empty(tokens, heads, size)
    normed = query_norm is not None and key_norm is not None
    _rope_store[(tokens, triton.cdiv(heads + 2 * kv_heads, HEADS))](
        query, qkv, cosine, sine, positions, slots, key_cache, value_cache,
        query_norm if normed else qkv, key_norm if normed else qkv, epsilon, 1 / key_scale, 1 / value_scale,
        qkv.stride(0), half, heads, kv_heads, key_cache.stride(0), key_cache.stride(1), key_cache.stride(2),
        PAGE=key_cache.shape[1], D=size, HALF=triton.next_power_of_2(max(half, size - half)),
        NORM=normed, HEADS=HEADS, num_warps=4, **overlapping(qkv.device),
    )  # fmt: skip
    return query


@triton.jit
def _rope_store(
    query, qkv, cosine, sine, positions, slots, key_cache, value_cache, query_norm, key_norm, epsilon, key_factor,
    value_factor, stride, half, heads, kv_heads, stride_block, stride_token, stride_head,
    PAGE: tl.constexpr, D: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr, HEADS: tl.constexpr,
    OVERLAP: tl.constexpr,
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    pair = tl.arange(0, HALF)
    # Two columns a lane: rotation mixes column i with column i + half; the rest of the head is carried along.
    there, is_query = (head < heads + 2 * kv_heads)[:, None], (head < heads)[:, None]
    turned = (head < heads + kv_heads)[:, None]
    low, high = there & (pair < half)[None, :], there & (pair < D - half)[None, :]
    follow(OVERLAP)
    source = qkv + token * stride + head[:, None] * D + pair[None, :]
    a = tl.load(source, mask=low, other=0.0).to(tl.float32)
    b = tl.load(source + half, mask=high, other=0.0).to(tl.float32)
    if NORM:
        scale = 1.0 / tl.sqrt_rn((tl.sum(a * a, 1) + tl.sum(b * b, 1)) / D + epsilon)[:, None]
        first = scale * _weight(query_norm, key_norm, is_query, pair, pair < half)
        second = scale * _weight(query_norm, key_norm, is_query, half + pair, pair < D - half)
        a = tl.where(turned, (a * first).to(qkv.dtype.element_ty).to(tl.float32), a)
        b = tl.where(turned, (b * second).to(qkv.dtype.element_ty).to(tl.float32), b)
    place = tl.load(positions + token).to(tl.int64) * half + pair
    c = tl.where(turned, tl.load(cosine + place, mask=pair < half, other=1.0).to(tl.float32)[None, :], 1.0)
    s = tl.where(turned, tl.load(sine + place, mask=pair < half, other=0.0).to(tl.float32)[None, :], 0.0)
    a, b = a * c - b * s, b * c + a * s
    target = query + (token * heads + head)[:, None] * D + pair[None, :]
    tl.store(target, a.to(query.dtype.element_ty), mask=low & is_query)
    tl.store(target + half, b.to(query.dtype.element_ty), mask=high & is_query)
    _store_kv(a, b, slots, token, head - heads, kv_heads, key_cache, value_cache, key_factor, value_factor, pair, half, low, high, stride_block, stride_token, stride_head, PAGE)  # fmt: skip


@triton.jit
def _weight(query_norm, key_norm, is_query, column, inside):
    """Norm weights ``[HEADS, HALF]``: the queries' or the keys' by row."""
    of_queries = tl.load(query_norm + column, mask=inside, other=0.0).to(tl.float32)
    of_keys = tl.load(key_norm + column, mask=inside, other=0.0).to(tl.float32)
    return tl.where(is_query, of_queries[None, :], of_keys[None, :])


@triton.jit
def _store_kv(
    a, b, slots, token, head, kv_heads, key_cache, value_cache, key_factor, value_factor, pair, half, low, high,
    stride_block, stride_token, stride_head, PAGE: tl.constexpr,
):  # fmt: skip
    slot = tl.load(slots + token).to(tl.int64)
    kept = slot + tl.zeros_like(head) >= 0
    is_key = ((head >= 0) & (head < kv_heads) & kept)[:, None]
    is_value = ((head >= kv_heads) & kept)[:, None]
    place = (slot // PAGE) * stride_block + (slot % PAGE) * stride_token + pair[None, :]
    key = key_cache + place + head[:, None] * stride_head
    tl.store(key, (a * key_factor).to(key_cache.dtype.element_ty), mask=low & is_key)
    tl.store(key + half, (b * key_factor).to(key_cache.dtype.element_ty), mask=high & is_key)
    value = value_cache + place + (head - kv_heads)[:, None] * stride_head
    tl.store(value, (a * value_factor).to(value_cache.dtype.element_ty), mask=low & is_value)
    tl.store(value + half, (b * value_factor).to(value_cache.dtype.element_ty), mask=high & is_value)

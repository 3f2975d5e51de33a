"""Every kernel as plain torch: what the tests compare with, and what runs where there is no GPU.

Shapes, everywhere: ``T`` tokens of a step, ``B`` sequences, ``H`` query heads, ``K`` KV heads, ``D`` head size. A KV
cache is ``[num_blocks, block_size, K, D]``; a block table ``[B, max_blocks]`` int32 of block ids.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gather(cache: Tensor, table: Tensor, length: int) -> Tensor:
    """The first ``length`` tokens of one sequence: ``[length, K, D]`` out of its blocks, table ``[max_blocks]``."""
    block_size = cache.shape[1]
    blocks = table[: (length + block_size - 1) // block_size].long()
    return cache[blocks].flatten(0, 1)[:length]


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int, softcap: float, sinks: Tensor | None
) -> Tensor:
    """Causal attention of the last ``T`` of ``N`` tokens: query ``[T, H, D]``, key and value ``[N, K, D]``, in fp32."""
    tokens, heads, _ = query.shape
    length, group = key.shape[0], heads // key.shape[1]
    key, value = (each.float().repeat_interleave(group, 1) for each in (key, value))
    scores = torch.einsum("thd,nhd->htn", query.float(), key) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(length - tokens, length, device=query.device)[:, None]
    other = torch.arange(length, device=query.device)[None]
    seen = other <= position
    if window:
        seen &= other > position - window
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        sink = sinks.float()[:, None, None].expand(heads, tokens, 1)
        return torch.einsum("htn,nhd->thd", torch.cat([scores, sink], -1).softmax(-1)[..., :-1], value)
    return torch.einsum("htn,nhd->thd", scores.softmax(-1), value)


def decode_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    lengths: Tensor,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """One query token a sequence: query ``[B, H, D]``, lengths ``[B]`` the tokens in the cache, this one among them.

    An empty sequence (length 0) answers zeros. ``key_scale`` and ``value_scale`` undo an FP8 cache's scaling.
    """
    starts = torch.arange(len(lengths) + 1, device=query.device)
    return prefill_attention(
        query, key_cache, value_cache, tables, lengths, starts, scale=scale, window=window, softcap=softcap,
        sinks=sinks, key_scale=key_scale, value_scale=value_scale,
    )  # fmt: skip


def prefill_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    tables: Tensor,
    lengths: Tensor,
    starts: Tensor,
    *,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    sinks: Tensor | None = None,
    key_scale: float = 1.0,
    value_scale: float = 1.0,
) -> Tensor:
    """Chunks of sequences: query ``[T, H, D]``, those of sequence ``b`` at ``starts[b]:starts[b + 1]``.

    They are the last tokens of the ``lengths[b]`` in the cache, so each sees the context before the chunk as well.
    """
    out = torch.zeros_like(query)
    bounds = starts.tolist()
    for row, length in enumerate(lengths.tolist()):
        first, last = bounds[row], bounds[row + 1]
        if first == last or length == 0:
            continue
        key = gather(key_cache, tables[row], length).float() * key_scale
        value = gather(value_cache, tables[row], length).float() * value_scale
        out[first:last] = attend(query[first:last], key, value, scale, window, softcap, sinks).to(query.dtype)
    return out


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
    """``x / rms(x) * weight`` over the last dimension; ``residual`` is first increased by ``x`` in place and used."""
    if residual is not None:
        residual.copy_((x.float() + residual.float()).to(residual.dtype))
        x = residual
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon) * weight.float()).to(x.dtype)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [T, K] @ weight [N, K].T + bias [N]``."""
    return torch.nn.functional.linear(x, weight, bias)


def silu_mul(x: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``x = [gate, up]`` along the last dimension."""
    gate, up = x.float().chunk(2, -1)
    return (torch.nn.functional.silu(gate) * up).to(x.dtype)


def gelu_mul(x: Tensor) -> Tensor:
    """``gelu_tanh(gate) * up`` of ``x = [gate, up]`` along the last dimension."""
    gate, up = x.float().chunk(2, -1)
    return (torch.nn.functional.gelu(gate, approximate="tanh") * up).to(x.dtype)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary embedding in halves: x ``[T, heads, D]``, cosine and sine ``[T, R / 2]``; elements beyond R stay."""
    half = cosine.shape[-1]
    wide = x.float()
    first, second, rest = wide[..., :half], wide[..., half : 2 * half], wide[..., 2 * half :]
    cosine, sine = cosine[:, None].float(), sine[:, None].float()
    turned = torch.cat([first * cosine - second * sine, second * cosine + first * sine, rest], -1)
    return turned.to(x.dtype)


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
    """Norm and rotate queries and keys, store keys and values at ``slots``; returns the queries ``[T, H, D]``.

    ``qkv`` is ``[T, (H + 2K) * D]``; ``cosine`` and ``sine`` are ``[max_positions, R / 2]``. Slot ``s`` is token
    ``s % block_size`` of block ``s // block_size``; a negative slot stores nothing.
    """
    kv_heads, size = key_cache.shape[2:]
    query, key, value = qkv.view(len(qkv), -1, size).split([heads, kv_heads, kv_heads], 1)
    if query_norm is not None and key_norm is not None:
        query, key = rms_norm(query, query_norm, epsilon), rms_norm(key, key_norm, epsilon)
    query, key = (rotate(each, cosine[positions], sine[positions]) for each in (query, key))
    kept = slots >= 0
    where = slots[kept].long()
    block, offset = where // key_cache.shape[1], where % key_cache.shape[1]
    key_cache[block, offset] = narrowed(key[kept], key_scale, key_cache.dtype)
    value_cache[block, offset] = narrowed(value[kept], value_scale, value_cache.dtype)
    return query.contiguous()


def narrowed(x: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """``x / scale`` as a cache of ``dtype`` holds it: FP8 has no infinity, so what is too large is cut off."""
    wide = x.float() / scale
    if dtype.itemsize == 1:
        wide = wide.clamp(torch.finfo(dtype).min, torch.finfo(dtype).max)
    return wide.to(dtype)


def floors(logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The lowest logit of each row of ``logits [B, V]`` that may be drawn, fp32 ``[B]``.

    ``top_k [B]`` 0, ``top_p [B]`` 1 and ``min_p [B]`` 0 leave everything in, and so does ``temperature [B]`` 0. Top-p
    holds among what top-k leaves in. The likeliest token always stays, and equal logits stay or go together.
    """
    ordered = logits.float().sort(dim=-1, descending=True).values
    rank = torch.arange(logits.shape[-1], device=logits.device).expand_as(logits)
    heat = torch.where(temperature > 0, temperature, 1.0)[:, None]
    out = (top_k[:, None] > 0) & (rank >= top_k[:, None])
    chances = (ordered / heat).masked_fill(out, float("-inf")).softmax(-1)
    out |= (top_p[:, None] < 1) & (chances.cumsum(-1) - chances >= top_p[:, None])
    out |= chances < min_p[:, None] * chances[:, :1]
    out[:, 0] = False
    lowest = ordered.masked_fill(out, float("inf")).min(-1).values
    return torch.where((temperature > 0) & out.any(-1), lowest, float("-inf"))


def gumbel_noise(seed: int, position: int, size: int, device: torch.device) -> Tensor:
    """``size`` draws from the standard Gumbel distribution, the same for the same ``seed`` and ``position``."""
    generator = torch.Generator(device).manual_seed((seed * 2654435761 + position) % 2**63)
    uniform = torch.rand(size, generator=generator, device=device)
    return -torch.log(-torch.log(uniform.clamp_min(1e-20)) + 1e-20)


def gumbel_sample(
    logits: Tensor, temperature: Tensor, seeds: Tensor, positions: Tensor, floors: Tensor | None = None
) -> Tensor:
    """One token a row: greedy where ``temperature [B]`` is 0, else drawn by seed and position; int64 ``[B]``.

    Logits below their row's ``floors [B]`` are never drawn.
    """
    tokens = logits.argmax(-1)
    for row in torch.nonzero(temperature > 0).flatten().tolist():
        noise = gumbel_noise(int(seeds[row]), int(positions[row]), logits.shape[-1], logits.device)
        scores = logits[row].float() / temperature[row] + noise
        if floors is not None:
            scores = scores.masked_fill(logits[row] < floors[row], float("-inf"))
        tokens[row] = scores.argmax()
    return tokens


def next_slots(rows: Tensor, lengths: Tensor, table: Tensor, block_size: int, slots: Tensor) -> None:
    """Write to ``slots [B]`` int64 where the next token of each of ``rows [B]`` goes, -1 for the padding row.

    ``lengths [S + 1]`` int32 counts the tokens in the cache, ``table [S + 1, max_blocks]`` int32 their blocks.
    """
    row = rows.long()
    position = lengths[row].long()
    found = table[row, position // block_size].long() * block_size + position % block_size
    slots.copy_(torch.where(row < len(lengths) - 1, found, -1))


def begin_decode(
    rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, positions: Tensor, grown: Tensor
) -> None:
    """Write each row's last token and its position (int64 ``[B]``) and its length with it (int32 ``[B]``, 0 padding)."""
    row = rows.long()
    tokens.copy_(last_tokens[row])
    positions.copy_(torch.where(row < len(lengths) - 1, lengths[row], 0))
    grown.copy_(torch.where(row < len(lengths) - 1, lengths[row] + 1, 0))


def end_decode(rows: Tensor, last_tokens: Tensor, lengths: Tensor, tokens: Tensor, grown: Tensor) -> None:
    """Keep each row's new token and length; padding changes nothing."""
    row = rows.long()
    real = row < len(lengths) - 1
    last_tokens[row[real]] = tokens[real]
    lengths[row[real]] = grown[real]

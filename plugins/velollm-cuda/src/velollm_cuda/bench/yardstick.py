"""Torch's own attention through cuDNN on contiguous keys and values: the yardstick that needs no install."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from velollm_cuda.bench.figure import Figure
from velollm_cuda.bench.paged import dtype_on
from velollm_cuda.bench.shapes import HEADS, DecodeShape, PrefillShape
from velollm_cuda.bench.timing import graph_time


def decode_time(shape: DecodeShape, copies: int, device: torch.device) -> Figure | str:
    """Microseconds of ``shape``, its lengths all equal, over ``copies`` of the cache; or why cuDNN does not run it."""
    return _time(shape.heads, len(shape.lengths), 1, shape.lengths[0], copies, device)


def prefill_time(shape: PrefillShape, copies: int, device: torch.device) -> Figure | str:
    """Microseconds of ``shape``; with a context before the chunk cuDNN needs the mask as a tensor."""
    mask = None
    if shape.chunk < shape.length:
        ones = torch.ones(shape.chunk, shape.length, dtype=torch.bool, device=device)
        mask = ones.tril(shape.length - shape.chunk)
    return _time(shape.heads, shape.count, shape.chunk, shape.length, copies, device, mask=mask, causal=mask is None)


def _time(
    heads: str, batch: int, queries: int, length: int, copies: int, device: torch.device, *,
    mask: Tensor | None = None, causal: bool = False,
) -> Figure | str:  # fmt: skip
    size = HEADS[heads]

    def random(count: int, tokens: int) -> Tensor:
        return torch.randn(batch, count, tokens, size.size, dtype=dtype_on(device), device=device)

    query = random(size.query, queries)
    caches = [(random(size.kv, length), random(size.kv, length)) for _ in range(copies)]

    def call(key: Tensor, value: Tensor) -> Callable[[], Tensor]:
        return lambda: scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=size.group > 1
        )

    try:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return graph_time([call(*cache) for cache in caches])
    except RuntimeError as error:
        return f"cuDNN's SDPA does not run it: {' '.join(str(error).split())[:80]}"

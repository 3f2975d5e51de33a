"""The scales of an FP8 cache: measured once, on tokens from all over the vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor

from velollm_cuda.batch import Batch, Chunks
from velollm_cuda.kernels.tiles import TilePlan
from velollm_cuda.models.transformer import Transformer

TOKENS = 256
HEADROOM = 2.0
LARGEST = torch.finfo(torch.float8_e4m3fn).max


@torch.inference_mode()
def calibrated(model: Transformer, dtype: torch.dtype) -> tuple[tuple[float, float], ...]:
    """What each layer's keys and values must be divided by to fill FP8's range by half.

    Keys of some models are hundreds of times larger than those of others (Qwen2.5 adds a bias to them): without a
    scale they would be cut off. ``dtype`` is the model's own.
    """
    cache = _filled_cache(model, dtype)
    scales = []
    for key, value in cache:
        largest = [max(float(each.abs().max()), 1e-6) for each in (key, value)]
        scales.append((HEADROOM * largest[0] / LARGEST, HEADROOM * largest[1] / LARGEST))
    return tuple(scales)


def _filled_cache(model: Transformer, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of one sequence, in a cache of one block: no block is left out by a window."""
    config, device = model.config, model.parameters.embedding.device
    count = min(TOKENS, config.context)
    shape = (2, count, config.kv_heads, config.head_size)
    cache = [(torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, device=device))]
    cache += [(torch.zeros_like(cache[0][0]), torch.zeros_like(cache[0][0])) for _ in range(config.layers - 1)]
    positions = torch.arange(count, device=device)
    tables = (torch.ones(1, 1, dtype=torch.int32, device=device),) * len(config.kv_windows)
    plan = TilePlan.of([count], [count], [0], config.group, config.kv_heads, config.head_size, device)
    chunks = Chunks(torch.zeros(1, dtype=torch.int64, device=device), plan)
    tokens = (positions * max(1, config.vocabulary // count)) % config.vocabulary
    model.forward(Batch(tokens, positions, (positions + count,) * len(tables), tables, None, chunks), cache)
    return cache

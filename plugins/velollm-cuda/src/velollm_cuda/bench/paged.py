"""Random keys and values in a paged cache, several times over, so that no call finds its own in the card's cache."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor

from velollm_cuda.bench.shapes import Heads

PAGE = 16
COLD_BYTES = 256 << 20
NOT_A_DISTANCE = 1e9


@frozen
class PagedCache:
    """``tables`` has one block table for each copy of the sequences; their pages are shuffled over the whole cache.

    ``key`` and ``value`` are ``[num_blocks, 16, K, D]``; block 0 is nobody's.
    """

    key: Tensor
    value: Tensor
    tables: tuple[Tensor, ...]
    lengths: Tensor

    @classmethod
    def of(cls, lengths: Sequence[int], heads: Heads, device: torch.device, copies: int | None = None) -> PagedCache:
        """Copies enough that a round through all of them reads 256 MiB, and at least two."""
        counts = [-(-length // PAGE) for length in lengths]
        if copies is None:
            one = sum(lengths) * heads.kv * heads.size * 4
            copies = max(2, math.ceil(COLD_BYTES / one) + 1)
        blocks = sum(counts) * copies
        shape = (blocks + 1, PAGE, heads.kv, heads.size)
        key, value = (torch.randn(shape, dtype=dtype_on(device), device=device) for _ in range(2))
        shuffled = (torch.randperm(blocks) + 1).int().split(sum(counts))
        tables = tuple(_table(pages, counts).to(device) for pages in shuffled)
        return cls(key, value, tables, torch.tensor(lengths, dtype=torch.int32, device=device))


def dtype_on(device: torch.device) -> torch.dtype:
    """bf16 as models are run; fp16 where kernels are interpreted, which knows no bf16."""
    return torch.bfloat16 if device.type == "cuda" else torch.float16


def _table(pages: Tensor, counts: Sequence[int]) -> Tensor:
    table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
    for row, mine in enumerate(pages.split(list(counts))):
        table[row, : len(mine)] = mine
    return table


def distance(found: Tensor, wanted: Tensor) -> float:
    """The relative L2 distance; a billion where either holds a NaN, which no JSON can carry."""
    apart = float((found.double() - wanted.double()).norm() / wanted.double().norm())
    return min(NOT_A_DISTANCE, apart)

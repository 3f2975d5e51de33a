"""Sort a model's tensors by what they serve, so that memory can be placed and a token's reads be counted."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache

from attrs import evolve, field, frozen

from velollm_core.models.spec import LayerSpec, TensorSpec

_BLOCK = re.compile(r"^(?:enc\.|dec\.)?blk\.(\d+)\.")
_EXPERTS = re.compile(r"\.ffn_(?:up|down|gate|gate_up)_(?:ch)?exps\.")
_LOOKUPS = ("per_layer_token_embd.", "position_embd.", "token_types.")


@frozen
class WeightGroups:
    """Bytes of a model's tensors by what they serve; ``dense`` and ``experts`` by block."""

    embedding: int = 0
    lookup: int = 0
    output: int = 0
    other: int = 0
    dense: dict[int, int] = field(factory=dict)
    experts: dict[int, int] = field(factory=dict)


@lru_cache(maxsize=1 << 15)
def block_of(name: str) -> int | None:
    """The block a tensor belongs to, None for one outside all blocks."""
    match = _BLOCK.match(name)
    return int(match[1]) if match else None


@lru_cache(maxsize=1 << 15)
def is_expert(name: str) -> bool:
    """Whether the tensor holds routed experts, of which a token reads a few."""
    return _EXPERTS.search(name) is not None


def group_weights(tensors: Sequence[TensorSpec], blocks: int) -> WeightGroups:
    """Sum the tensors' bytes by group."""
    sums: dict[str, int] = defaultdict(int)
    dense: dict[int, int] = defaultdict(int)
    experts: dict[int, int] = defaultdict(int)
    for tensor in tensors:
        block = block_of(tensor.name)
        if block is not None and block < blocks:
            (experts if is_expert(tensor.name) else dense)[block] += tensor.bytes
        else:
            sums[_outside(tensor.name)] += tensor.bytes
    return WeightGroups(sums["embedding"], sums["lookup"], sums["output"], sums["other"], dense, experts)


def with_weights(layers: Sequence[LayerSpec], groups: WeightGroups) -> tuple[LayerSpec, ...]:
    """Put the blocks' bytes into their layers."""
    return tuple(
        evolve(layer, dense_bytes=groups.dense.get(layer.index, 0), expert_bytes=groups.experts.get(layer.index, 0))
        for layer in layers
    )


def _outside(name: str) -> str:
    if name.startswith("token_embd."):
        return "embedding"
    if name.startswith(_LOOKUPS):
        return "lookup"
    return "output" if name.startswith("output.") else "other"

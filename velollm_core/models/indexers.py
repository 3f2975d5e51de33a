"""The second cache of sparse attention: which layers have one, and how long its rows are."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.models.metadata import Metadata
from velollm_core.models.rules import Indexer

TYPES_KEY = "{a}.attention.indexer.types"
LONG_CONTEXT = 1 << 20
"""GLM models trained for this many tokens share indexers in groups of four; those before them have one per layer."""


def indexer_rows(
    rule: Indexer | None, metadata: Metadata, main_blocks: int, recurrent: Sequence[bool], value_length: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Elements of the indexer's key row and value row, per block; 0 where there is none.

    Raises:
        ModelFileError: a key is missing or wrong.
    """
    blocks = len(recurrent)
    none = (0,) * blocks
    if rule is None or (rule.optional and not _present(metadata)):
        return none, none
    owners = _owners(rule, metadata, main_blocks, blocks)
    owners = tuple(owns and not state for owns, state in zip(owners, recurrent, strict=True))
    pooled = rule.pooled > 1 and _pools(rule, metadata)
    key = metadata.integer("{a}.attention.indexer.key_length") * (rule.pooled if pooled else 1)
    value = value_length if rule.with_values else 0
    return tuple(key if owns else 0 for owns in owners), tuple(value if owns else 0 for owns in owners)


def _present(metadata: Metadata) -> bool:
    keys = ("{a}.attention.indexer.key_length", "{a}.attention.indexer.top_k")
    return all(metadata.integer(key, 0) for key in keys)


def _pools(rule: Indexer, metadata: Metadata) -> bool:
    if not metadata.has(rule.pooled_key):
        return False
    return any(metadata.per_layer(rule.pooled_key, metadata.block_count))


def _owners(rule: Indexer, metadata: Metadata, main_blocks: int, blocks: int) -> tuple[bool, ...]:
    if rule.where == "behind_dense":
        dense = metadata.integer("{a}.leading_dense_block_count", 0)
        return tuple(layer >= dense for layer in range(blocks))
    flags = [True] * main_blocks
    if rule.where == "listed":
        flags = [bool(flag) for flag in _listed(rule, metadata, main_blocks)]
    return tuple(flags + [False] * (blocks - main_blocks))


def _listed(rule: Indexer, metadata: Metadata, main_blocks: int) -> Sequence[int]:
    flags = metadata.flags(TYPES_KEY, main_blocks)
    if flags is not None:
        return flags
    if metadata.has(TYPES_KEY):
        return metadata.per_layer(TYPES_KEY, main_blocks)
    if rule.fallback == "glm" and metadata.integer("{a}.context_length") >= LONG_CONTEXT:
        return [layer < 2 or (layer - 2) % 4 == 0 for layer in range(main_blocks)]
    return [rule.fallback in ("all", "glm")] * main_blocks

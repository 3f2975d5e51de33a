"""Which blocks hold which tokens: the prefix cache as an interned chain."""

from __future__ import annotations

import struct
from collections.abc import Sequence


class PrefixNode:
    """A full block's tokens after everything before them, once and only once.

    ``parent`` is the node before, or the salt of the chain; identity of the parent and equality of the tokens make
    the whole prefix equal, so that no digest is needed. ``blocks`` names the block that holds it per KV group, 0 for
    none.
    """

    __slots__ = ("blocks", "key")

    def __init__(self, key: tuple[PrefixNode | str, bytes], num_groups: int) -> None:
        self.key = key
        self.blocks = [0] * num_groups

    @property
    def parent(self) -> PrefixNode | str:
        """The node before this one, or the salt."""
        return self.key[0]


class PrefixCache:
    """Finds the longest cached prefix, one dictionary lookup a block."""

    def __init__(self, block_size: int, num_groups: int) -> None:
        self._block_size = block_size
        self._num_groups = num_groups
        self._block = struct.Struct(f"{block_size}i")
        self._nodes: dict[tuple[PrefixNode | str, bytes], PrefixNode] = {}

    def __len__(self) -> int:
        """How many block contents are cached."""
        return len(self._nodes)

    def lookup(self, token_ids: Sequence[int], num_blocks: int, salt: str) -> list[PrefixNode]:
        """The cached nodes of the first ``num_blocks`` full blocks, up to the first that is not cached."""
        num_tokens = num_blocks * self._block_size
        width = self._block.size
        packed = struct.pack(f"{num_tokens}i", *token_ids[:num_tokens])
        get = self._nodes.get
        parent: PrefixNode | str = salt
        found = []
        for start in range(0, num_tokens * 4, width):
            node = get((parent, packed[start : start + width]))
            if node is None:
                break
            found.append(node)
            parent = node
        return found

    def intern(self, parent: PrefixNode | str, token_ids: Sequence[int]) -> PrefixNode:
        """The node of one full block's tokens after ``parent``."""
        key = (parent, self._block.pack(*token_ids))
        node = self._nodes.get(key)
        if node is None:
            node = self._nodes[key] = PrefixNode(key, self._num_groups)
        return node

    def evict(self, node: PrefixNode, group: int) -> None:
        """``group`` no longer holds the node's tokens."""
        node.blocks[group] = 0
        self.forget_empty(node)

    def forget_empty(self, node: PrefixNode) -> None:
        """Forget a node that no group holds."""
        if not any(node.blocks):
            self._nodes.pop(node.key, None)

"""Which blocks hold which tokens: the prefix cache as an interned chain."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

ID_BYTES = 4


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
        self._nodes: dict[tuple[PrefixNode | str, bytes], PrefixNode] = {}

    def __len__(self) -> int:
        """How many block contents are cached."""
        return len(self._nodes)

    def lookup(self, token_ids: Sequence[int], num_blocks: int, salt: str) -> list[PrefixNode]:
        """The cached nodes of the first ``num_blocks`` full blocks, up to the first that is not cached."""
        get = self._nodes.get
        parent: PrefixNode | str = salt
        found = []
        for tokens in self._packed(token_ids, num_blocks):
            node = get((parent, tokens))
            if node is None:
                break
            found.append(node)
            parent = node
        return found

    def extend(self, parent: PrefixNode | str, token_ids: Sequence[int]) -> list[PrefixNode]:
        """The nodes of the full blocks of ``token_ids`` after ``parent``, made where there are none."""
        nodes, chain = self._nodes, []
        for tokens in self._packed(token_ids, len(token_ids) // self._block_size):
            key = (parent, tokens)
            node = nodes.get(key)
            if node is None:
                node = nodes[key] = PrefixNode(key, self._num_groups)
            chain.append(node)
            parent = node
        return chain

    def _packed(self, token_ids: Sequence[int], num_blocks: int) -> Iterator[bytes]:
        """The tokens of each block as bytes: quick to compare and to hash, small to keep."""
        num_tokens, width = num_blocks * self._block_size, self._block_size * ID_BYTES
        packed = struct.pack(f"{num_tokens}i", *token_ids[:num_tokens])
        return (packed[start : start + width] for start in range(0, num_tokens * ID_BYTES, width))

    def evict(self, node: PrefixNode, group: int) -> None:
        """``group`` no longer holds the node's tokens."""
        node.blocks[group] = 0
        if self._num_groups == 1:
            del self._nodes[node.key]
        else:
            self.forget_empty(node)

    def forget_empty(self, node: PrefixNode) -> None:
        """Forget a node that no group holds."""
        if not any(node.blocks):
            self._nodes.pop(node.key, None)

"""The blocks of one KV group: reference counts, and a free list that doubles as the LRU of cached blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from velollm_core.engine.prefix import PrefixCache, PrefixNode


class BlockPool:
    """Hands out block ids 1 and up; every operation is O(1) a block.

    Free blocks wait in one ordered dictionary: those without content in front, cached ones behind, the longest
    unused first. So what is worth least is taken first.
    """

    def __init__(self, group: int, num_blocks: int, cache: PrefixCache) -> None:
        self._group = group
        self._cache = cache
        self.total = num_blocks - 1
        self.references = [0] * num_blocks
        self.nodes: list[PrefixNode | None] = [None] * num_blocks
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self.num_cached = 0
        self.num_shares = 0
        self.evictions = 0

    def take(self) -> int:
        """A block for one owner; its old content is forgotten. There must be a free one."""
        block, _ = self.free.popitem(last=False)
        if self.nodes[block] is not None:
            self.num_cached -= 1
            self.evictions += 1
            self.unpublish(block)
        self.references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One owner more; a cached free block comes back to life."""
        if self.references[block]:
            self.num_shares += 1
        else:
            del self.free[block]
            self.num_cached -= 1
        self.references[block] += 1

    def drop(self, blocks: Iterable[int]) -> None:
        """One owner less for each of ``blocks``; the null block is skipped."""
        references, nodes, free = self.references, self.nodes, self.free
        for block in blocks:
            if not block:
                continue
            references[block] -= 1
            if references[block]:
                self.num_shares -= 1
                continue
            free[block] = None
            if nodes[block] is None:
                free.move_to_end(block, last=False)
            else:
                self.num_cached += 1

    def publish(self, block: int, node: PrefixNode) -> None:
        """Let ``block`` be found as ``node``, unless another block is; the null block never is."""
        if block and not node.blocks[self._group]:
            node.blocks[self._group] = block
            self.nodes[block] = node

    def unpublish(self, block: int) -> None:
        """Let ``block`` no longer be found."""
        node = self.nodes[block]
        if node is not None:
            self.nodes[block] = None
            self._cache.evict(node, self._group)

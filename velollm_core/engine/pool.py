"""The blocks of one KV group: reference counts, and a free list that doubles as the LRU of cached blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from velollm_core.engine.prefix import PrefixCache, PrefixNode


class BlockPool:
    """Hands out block ids 1 and up; every operation is O(1) a block.

    Free blocks wait in one ordered dictionary: those without content in front, cached ones behind, the longest
    unused first. So what is worth least is taken first.
    """

    def __init__(self, group: int, num_blocks: int, cache: PrefixCache) -> None:
        self.group = group
        self._cache = cache
        self.total = num_blocks - 1
        self.references = [0] * num_blocks
        self.nodes: list[PrefixNode | None] = [None] * num_blocks
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(1, num_blocks))
        self.num_cached = 0
        self.num_shares = 0
        self.evictions = 0

    def take(self, count: int) -> tuple[int, ...]:
        """``count`` blocks for one owner; their old content is forgotten. So many must be free."""
        if count == 1:
            return (self._take(),)
        return tuple([self._take() for _ in range(count)])

    def _take(self) -> int:
        block, _ = self.free.popitem(last=False)
        self.references[block] = 1
        if self.nodes[block] is not None:
            self.num_cached -= 1
            self.evictions += 1
            self.unpublish(block)
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

    def publish(self, blocks: Sequence[int], nodes: Sequence[PrefixNode]) -> None:
        """Let each of ``blocks`` be found as its node, unless another block is; the null block never is."""
        group, own = self.group, self.nodes
        for block, node in zip(blocks, nodes, strict=True):
            if block and not node.blocks[group]:
                node.blocks[group] = block
                own[block] = node

    def unpublish(self, block: int) -> None:
        """Let ``block`` no longer be found."""
        node = self.nodes[block]
        if node is not None:
            self.nodes[block] = None
            self._cache.evict(node, self.group)

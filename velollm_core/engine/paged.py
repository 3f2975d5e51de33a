"""The core's block manager: paged, shared by reference, copied on write, cached by prefix."""

from __future__ import annotations

from operator import mul

from attrs import define

from velollm_core.engine.blocks import BlockUsage
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.output import BlockChanges, BlockCopy, TableUpdate
from velollm_core.engine.pool import BlockPool
from velollm_core.engine.prefix import PrefixCache, PrefixNode
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import OutOfBlocks, VeloError


@define(eq=False)
class _Holding:
    """What the manager remembers of a sequence: the chain of its published blocks, and hits not yet counted."""

    sequence: Sequence
    tail: PrefixNode | str
    published: int = 0
    uncounted_hit: int | None = None

    def ancestor(self, published: int) -> tuple[PrefixNode | str, int]:
        """The chain as it was at ``published`` blocks, or as it is where it is shorter."""
        tail = self.tail
        for _ in range(self.published - published):
            assert isinstance(tail, PrefixNode)
            tail = tail.parent
        return tail, min(self.published, published)


class PagedBlockManager:
    """Implements `BlockManager`; every operation costs O(1) per block it touches."""

    def __init__(self, layout: KVCacheLayout, num_blocks: tuple[int, ...]) -> None:
        """``num_blocks`` counts each group's blocks, the null block included."""
        if min(num_blocks) < 2:
            size = sum(layout.bytes_per_block)
            raise VeloError(f"the KV cache is too small: {num_blocks} blocks per group, each {size} bytes; it needs 2")
        self._layout = layout
        self._block_size = layout.block_size
        self.prefixes = PrefixCache(layout.block_size, len(layout.groups))
        self._pools = [BlockPool(group, count, self.prefixes) for group, count in enumerate(num_blocks)]
        self._windows = [index for index, group in enumerate(layout.groups) if group.window is not None]
        self._holdings: dict[str, _Holding] = {}
        self._updates: list[TableUpdate] = []
        self._copies: list[BlockCopy] = []
        self._hit_tokens = self._queried_tokens = 0

    @property
    def layout(self) -> KVCacheLayout:
        """What a block holds."""
        return self._layout

    @property
    def num_free_blocks(self) -> int:
        """Blocks that can be handed out now, in the group that has the fewest."""
        return min(len(pool.free) for pool in self._pools)

    def check(self, num_tokens: int) -> None:
        """Raise `OutOfBlocks` if a sequence of ``num_tokens`` can never fit."""
        for pool, needed in zip(self._pools, self._layout.blocks_for(num_tokens), strict=True):
            if needed > pool.total:
                raise OutOfBlocks(
                    f"a sequence of {num_tokens} tokens needs {needed} blocks of {self._block_size} tokens and the "
                    f"KV cache has {pool.total}, which is {pool.total * self._block_size} tokens: shorten the prompt "
                    f"or the answer, or give the cache {self._layout.bytes_for(num_tokens) / 2**20:.1f} MiB"
                )

    def match(self, sequence: Sequence) -> int:
        """Give ``sequence`` the cached blocks of its leading tokens; return how many tokens they hold."""
        sequence.num_computed = 0
        holding = self._hold(sequence)
        limit = (len(sequence.token_ids) - 1) // self._block_size if sequence.use_cache else 0
        nodes = self.prefixes.lookup(sequence.token_ids, limit, sequence.cache_salt) if limit else []
        if len(self._pools) > 1:
            del nodes[self._usable(nodes) :]
        if nodes:
            holding.tail, holding.published = nodes[-1], len(nodes)
        hit = holding.uncounted_hit = len(nodes) * self._block_size
        for group in range(len(self._pools)):
            dead = self._dead_blocks(group, hit)
            self._adopt(sequence, group, [0] * dead + [node.blocks[group] for node in nodes[dead:]])
        sequence.num_computed = sequence.num_retired = hit
        return hit

    def fork(self, parent: Sequence, child: Sequence) -> int:
        """Share the parent's retired blocks with ``child``; 0 where a window has moved past what the child needs."""
        child.num_computed = 0
        holding, source = self._hold(child), self._holdings[parent.id]
        shared = min(child.num_prompt_tokens - 1, parent.num_retired)
        count = -(-shared // self._block_size)
        for group, table in enumerate(parent.block_tables):
            if not all(table[self._dead_blocks(group, shared) : count]):
                return 0
        for group, table in enumerate(parent.block_tables):
            self._adopt(child, group, table[:count])
        holding.tail, holding.published = source.ancestor(shared // self._block_size)
        holding.uncounted_hit = child.num_computed = child.num_retired = shared
        return shared

    def admits(self, sequence: Sequence, num_tokens: int, reserve: float) -> bool:
        """Whether ``sequence`` could grow to ``num_tokens`` now and leave ``reserve`` of all blocks free."""
        tables = sequence.block_tables or ((),) * len(self._pools)
        return all(
            len(pool.free) - max(0, needed - sum(map(bool, table))) >= reserve * pool.total
            for pool, table, needed in zip(self._pools, tables, self._layout.blocks_for(num_tokens), strict=True)
        )

    def room(self, sequence: Sequence) -> int:
        """How many tokens ``sequence`` could hold if it took every free block."""
        return self._block_size * min(
            len(pool.free) + len(table) for pool, table in zip(self._pools, sequence.block_tables, strict=True)
        )

    def allocate(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make room for the first ``num_tokens`` tokens; False changes nothing."""
        holding = self._holdings.get(sequence.id) or self._hold(sequence)
        wanted = -(-num_tokens // self._block_size)
        if sequence.num_computed % self._block_size and not self._own(sequence, wanted):
            return False
        if len(self._pools) > 1 and wanted * self._block_size > self.room(sequence):
            return False
        for pool, table in zip(self._pools, sequence.block_tables, strict=False):
            held = len(table)
            if wanted - held > len(pool.free):
                return False
            if wanted > held:
                blocks = pool.take(wanted - held)
                table += blocks
                self._updates.append(TableUpdate(sequence, pool.group, held, blocks))
        if holding.uncounted_hit is not None:
            self._queried_tokens += len(sequence.token_ids)
            self._hit_tokens += holding.uncounted_hit
            holding.uncounted_hit = None
        return True

    def take_changes(self) -> BlockChanges:
        """The table entries and copies made since the last call."""
        changes = BlockChanges(tuple(self._updates), tuple(self._copies))
        self._updates.clear()
        self._copies.clear()
        return changes

    def commit(self, sequence: Sequence, num_tokens: int) -> None:
        """Publish the blocks that the first ``num_tokens`` tokens fill; free those that left a window."""
        holding = self._holdings[sequence.id]
        sequence.num_retired = num_tokens
        first, last = holding.published, num_tokens // self._block_size
        if first < last and sequence.use_cache:
            nodes = self.prefixes.extend(
                holding.tail, sequence.token_ids[first * self._block_size : last * self._block_size]
            )
            for pool, table in zip(self._pools, sequence.block_tables, strict=True):
                pool.publish(table[first:last], nodes)
            holding.tail, holding.published = nodes[-1], last
            if self._windows:
                for node in nodes:
                    self.prefixes.forget_empty(node)
        if self._windows:
            self._shrink_windows(sequence, num_tokens)

    def _shrink_windows(self, sequence: Sequence, num_tokens: int) -> None:
        for group in self._windows:
            table = sequence.block_tables[group]
            dead = min(self._dead_blocks(group, num_tokens), len(table))
            while dead and table[dead - 1]:
                dead -= 1
                self._pools[group].drop((table[dead],))
                table[dead] = 0

    def free(self, sequence: Sequence) -> None:
        """Take all blocks back, the last first, so that a prefix outlives what follows it."""
        for pool, table in zip(self._pools, sequence.block_tables, strict=False):
            pool.drop(reversed(table))
        sequence.block_tables = ()
        self._holdings.pop(sequence.id, None)
        self._updates = [update for update in self._updates if update.sequence is not sequence]
        self._copies = [copy for copy in self._copies if copy.sequence is not sequence]

    def usage(self) -> BlockUsage:
        """The counters, now."""
        used = [pool.total - len(pool.free) for pool in self._pools]
        sizes = self._layout.bytes_per_block
        wasted = sum(
            max(0, len(table) * self._block_size - holding.sequence.num_computed)
            for holding in self._holdings.values()
            for table in holding.sequence.block_tables
        )
        return BlockUsage(
            total=sum(pool.total for pool in self._pools),
            used=sum(used),
            cached=sum(pool.num_cached for pool in self._pools),
            slots=sum(used) * self._block_size,
            wasted_slots=wasted,
            bytes_total=sum(pool.total * size for pool, size in zip(self._pools, sizes, strict=True)),
            bytes_used=sum(map(mul, used, sizes)),
            bytes_saved=sum(pool.num_shares * size for pool, size in zip(self._pools, sizes, strict=True)),
            hit_tokens=self._hit_tokens,
            queried_tokens=self._queried_tokens,
            evictions=sum(pool.evictions for pool in self._pools),
        )

    def _hold(self, sequence: Sequence) -> _Holding:
        dead = [self._dead_blocks(group, sequence.num_computed) for group in range(len(self._pools))]
        sequence.block_tables = tuple([0] * count for count in dead)
        if any(dead):
            self._updates += [TableUpdate(sequence, group, 0, (0,) * count) for group, count in enumerate(dead)]
        holding = self._holdings[sequence.id] = _Holding(sequence, sequence.cache_salt)
        return holding

    def _adopt(self, sequence: Sequence, group: int, blocks: list[int]) -> None:
        pool, table = self._pools[group], sequence.block_tables[group]
        for block in blocks:
            if block:
                pool.share(block)
        table.extend(blocks)
        self._updates.append(TableUpdate(sequence, group, 0, tuple(blocks)))

    def _own(self, sequence: Sequence, wanted: int) -> bool:
        """Make the partly filled block that ``sequence`` writes to next its own, if all it wants then fits."""
        index = sequence.num_computed // self._block_size
        partial = []
        for pool, table in zip(self._pools, sequence.block_tables, strict=True):
            block = table[index] if index < len(table) else 0
            if wanted - len(table) + (pool.references[block] > 1) > len(pool.free):
                return False
            partial.append((pool, table, block))
        for pool, table, block in partial:
            if pool.references[block] > 1:
                (table[index],) = pool.take(1)
                pool.drop((block,))
                self._copies.append(BlockCopy(sequence, pool.group, index, block, table[index]))
            else:
                pool.unpublish(block)
        return True

    def _dead_blocks(self, group: int, num_tokens: int) -> int:
        """Leading blocks that no token from ``num_tokens`` on looks at."""
        window = self._layout.groups[group].window
        return 0 if window is None else max(0, num_tokens - window + 1) // self._block_size

    def _usable(self, nodes: list[PrefixNode]) -> int:
        """The most leading nodes that every group can serve: a full one from all, a window from its last ones."""
        usable = 0
        runs = [0] * len(self._pools)
        for count, node in enumerate(nodes, 1):
            runs = [run + 1 if block else 0 for run, block in zip(runs, node.blocks, strict=True)]
            tokens = count * self._block_size
            if all(run >= count - self._dead_blocks(group, tokens) for group, run in enumerate(runs)):
                usable = count
        return usable

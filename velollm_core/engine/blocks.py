"""The seam of `allocate_kv`: who holds which block of the KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from attrs import frozen

if TYPE_CHECKING:
    from velollm_core.engine.layout import KVCacheLayout
    from velollm_core.engine.output import BlockChanges
    from velollm_core.engine.sequence import Sequence


@frozen
class BlockUsage:
    """The cache at one moment, all groups together; the null blocks are not counted.

    ``used`` blocks belong to sequences; of the free ones ``cached`` still hold a prefix that may be hit. ``slots``
    are token places in used blocks, ``wasted_slots`` those of them that hold no token yet. ``bytes_saved`` is what
    shared blocks would take besides if they were not shared. ``hit_tokens`` of ``queried_tokens`` came from the cache.
    """

    total: int
    used: int
    cached: int
    slots: int
    wasted_slots: int
    bytes_total: int
    bytes_used: int
    bytes_saved: int
    hit_tokens: int
    queried_tokens: int
    evictions: int

    @property
    def utilisation(self) -> float:
        """Share of the blocks that sequences hold."""
        return self.used / self.total if self.total else 0.0

    @property
    def fragmentation(self) -> float:
        """Share of the token places in used blocks that hold no token."""
        return self.wasted_slots / self.slots if self.slots else 0.0


@runtime_checkable
class BlockManager(Protocol):
    """Hands out blocks to sequences. It moves no bytes: an executor does what `SchedulerOutput` says.

    `velollm_core.testing.BlockManagerContract` judges an implementation.
    """

    @property
    def layout(self) -> KVCacheLayout:
        """What a block holds."""

    @property
    def num_free_blocks(self) -> int:
        """Blocks that can be handed out now, in the group that has the fewest."""

    def check(self, num_tokens: int) -> None:
        """Raise `OutOfBlocks`, with its arithmetic, if a sequence of ``num_tokens`` can never fit."""

    def match(self, sequence: Sequence) -> int:
        """Give ``sequence`` the cached blocks of its leading tokens; return how many tokens they hold.

        Sets ``block_tables`` and ``num_computed``. At least the last token is left to compute, since its logits are
        wanted. The sequence must hold no blocks.
        """

    def admits(self, sequence: Sequence, num_tokens: int, reserve: float) -> bool:
        """Whether ``sequence`` could grow to ``num_tokens`` now and leave ``reserve`` (a share) of all blocks free."""

    def room(self, sequence: Sequence) -> int:
        """How many tokens ``sequence`` could hold if it took every free block."""

    def allocate(self, sequence: Sequence, num_tokens: int) -> bool:
        """Make room for the first ``num_tokens`` tokens and make the next one's block its own; False changes nothing.

        A shared block that the sequence is about to write to is replaced by a copy.
        """

    def take_changes(self) -> BlockChanges:
        """The table entries and copies made since the last call, for sequences that still hold them."""

    def commit(self, sequence: Sequence, num_tokens: int) -> None:
        """The step that filled the first ``num_tokens`` tokens has retired.

        Full blocks may now be hit by others, and blocks that left a window are free.
        """

    def fork(self, parent: Sequence, child: Sequence) -> int:
        """Share the parent's retired blocks of their common prompt with ``child``; like `match`."""

    def free(self, sequence: Sequence) -> None:
        """Take all blocks back. Call only when no step in flight uses them."""

    def usage(self) -> BlockUsage:
        """The counters, now."""

"""What one step computes."""

from __future__ import annotations

from attrs import frozen

from velollm_core.engine.sequence import Sequence


@frozen
class ScheduledChunk:
    """Several known tokens of one sequence: a piece of its prompt, or its last token and drafts behind it.

    The tokens go to the positions from ``start`` on. ``samples`` is how many of the last positions give logits: 0 for
    an inner piece of a prompt, 1 for its end, 1 + k with k drafts.
    """

    sequence: Sequence
    start: int
    token_ids: tuple[int, ...]
    samples: int


@frozen
class TableUpdate:
    """Block ids that a sequence's table holds from entry ``start`` on, for one KV group."""

    sequence: Sequence
    group: int
    start: int
    blocks: tuple[int, ...]


@frozen
class BlockCopy:
    """Copy block ``source`` to ``target``, which takes entry ``index`` of the sequence's table (copy-on-write)."""

    sequence: Sequence
    group: int
    index: int
    source: int
    target: int


@frozen
class BlockChanges:
    """What a block manager did to tables, for the next step to carry out."""

    table_updates: tuple[TableUpdate, ...] = ()
    copies: tuple[BlockCopy, ...] = ()


@frozen
class Swap:
    """The first ``num_tokens`` tokens of a sequence leave the cache, or come back, through these block tables."""

    sequence: Sequence
    num_tokens: int
    block_tables: tuple[tuple[int, ...], ...]


@frozen
class SchedulerOutput:
    """One step, unchangeable, so that an engine may run behind the scheduler.

    A step is carried out in this order: ``released`` sequences are forgotten, ``swaps_out``, ``table_updates``,
    ``copies`` one after the other, ``swaps_in``, then the tokens. ``decodes`` compute one token each, at
    ``positions``; with a step of theirs in flight that token is what the step before will give. Rows of logits are
    the decodes, then the chunks that sample. ``final`` are decodes whose last token this step gives; ``commits``
    names sequences with the tokens that are in the cache once it has retired; what decodes fill is committed when
    their sequence ends, or at each block where a window must give blocks back.
    """

    step: int
    decodes: tuple[Sequence, ...] = ()
    bases: tuple[int, ...] = ()
    tick: int = 0
    chunks: tuple[ScheduledChunk, ...] = ()
    table_updates: tuple[TableUpdate, ...] = ()
    copies: tuple[BlockCopy, ...] = ()
    swaps_out: tuple[Swap, ...] = ()
    swaps_in: tuple[Swap, ...] = ()
    released: tuple[Sequence, ...] = ()
    final: tuple[Sequence, ...] = ()
    commits: tuple[tuple[Sequence, int], ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the token of each decode goes; in a steady batch every position is one more than a step before."""
        return tuple([base + self.tick for base in self.bases])

    @property
    def sampled(self) -> tuple[Sequence, ...]:
        """Whose tokens the step gives, in the order of its results: the decodes, then the chunks that sample."""
        return (*self.decodes, *[chunk.sequence for chunk in self.chunks if chunk.samples])

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes."""
        return len(self.decodes) + sum(len(chunk.token_ids) for chunk in self.chunks)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to launch."""
        return not (self.decodes or self.chunks or self.swaps_out or self.swaps_in)

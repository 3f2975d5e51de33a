"""A step while it is being planned."""

from __future__ import annotations

from attrs import define, field

from velollm_core.engine.output import BlockCopy, ScheduledChunk, SchedulerOutput, Swap, TableUpdate
from velollm_core.engine.sequence import Sequence


@define(eq=False)
class StepBuilder:
    """Collects a `SchedulerOutput`; ``budget`` is the number of tokens that may still be added."""

    step: int
    budget: int
    decodes: tuple[Sequence, ...] = ()
    positions: tuple[int, ...] = ()
    chunks: list[ScheduledChunk] = field(factory=list)
    table_updates: list[TableUpdate] = field(factory=list)
    swaps_out: list[Swap] = field(factory=list)
    swaps_in: list[Swap] = field(factory=list)
    final: list[Sequence] = field(factory=list)
    commits: list[tuple[Sequence, int]] = field(factory=list)

    def decode(self, sequences: list[Sequence]) -> None:
        """One token of each of ``sequences``."""
        self.decodes = tuple(sequences)
        self.positions = tuple([sequence.num_computed for sequence in sequences])
        for sequence in sequences:
            sequence.num_computed += 1
        self.budget -= len(sequences)

    def add(self, chunk: ScheduledChunk) -> None:
        """Several tokens of one sequence."""
        self.chunks.append(chunk)
        self.budget -= len(chunk.token_ids)

    def grow(self, sequence: Sequence, held: list[int]) -> None:
        """The tables of ``sequence`` are longer than ``held`` entries by now."""
        for group, (table, start) in enumerate(zip(sequence.block_tables, held, strict=True)):
            if len(table) > start:
                self.table_updates.append(TableUpdate(sequence, group, start, tuple(table[start:])))

    def includes(self, sequence: Sequence) -> bool:
        """Whether the step touches ``sequence``."""
        return sequence in self.decodes or any(chunk.sequence is sequence for chunk in self.chunks)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was planned."""
        return not (self.decodes or self.chunks or self.swaps_out or self.swaps_in)

    def build(self, copies: tuple[BlockCopy, ...], released: list[Sequence]) -> SchedulerOutput:
        """The step, unchangeable."""
        return SchedulerOutput(
            step=self.step,
            decodes=self.decodes,
            positions=self.positions,
            chunks=tuple(self.chunks),
            table_updates=tuple(self.table_updates),
            copies=copies,
            swaps_out=tuple(self.swaps_out),
            swaps_in=tuple(self.swaps_in),
            released=tuple(released),
            final=tuple(self.final),
            commits=tuple(self.commits),
        )

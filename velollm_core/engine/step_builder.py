"""A step while it is being planned."""

from __future__ import annotations

from attrs import define, field

from velollm_core.engine.output import BlockChanges, ScheduledChunk, SchedulerOutput, Swap
from velollm_core.engine.sequence import Sequence


@define(eq=False)
class StepBuilder:
    """Collects a `SchedulerOutput`; ``budget`` is the number of tokens that may still be added."""

    step: int
    budget: int
    decodes: tuple[Sequence, ...] = ()
    bases: tuple[int, ...] = ()
    tick: int = 0
    chunks: list[ScheduledChunk] = field(factory=list)
    swaps_out: list[Swap] = field(factory=list)
    swaps_in: list[Swap] = field(factory=list)
    final: list[Sequence] = field(factory=list)
    commits: list[tuple[Sequence, int]] = field(factory=list)

    def add(self, chunk: ScheduledChunk) -> None:
        """Several tokens of one sequence."""
        self.chunks.append(chunk)
        self.budget -= len(chunk.token_ids)

    def includes(self, sequence: Sequence) -> bool:
        """Whether the step touches ``sequence``."""
        return sequence in self.decodes or any(chunk.sequence is sequence for chunk in self.chunks)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was planned."""
        return not (self.decodes or self.chunks or self.swaps_out or self.swaps_in)

    def build(self, changes: BlockChanges, released: list[Sequence]) -> SchedulerOutput:
        """The step, unchangeable."""
        return SchedulerOutput(
            step=self.step,
            decodes=self.decodes,
            bases=self.bases,
            tick=self.tick,
            chunks=tuple(self.chunks),
            table_updates=changes.table_updates,
            copies=changes.copies,
            swaps_out=tuple(self.swaps_out),
            swaps_in=tuple(self.swaps_in),
            released=tuple(released),
            final=tuple(self.final),
            commits=tuple(self.commits),
        )

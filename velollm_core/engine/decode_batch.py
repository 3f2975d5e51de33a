"""The sequences that decode one token a step, side by side."""

from __future__ import annotations

from bisect import insort
from operator import attrgetter

from velollm_core.engine.clock import STILL, Clock
from velollm_core.engine.sequence import Sequence

by_order = attrgetter("order")


class DecodeBatch:
    """Moves all its members on by one token at the cost of one addition.

    A step touches only members that are due: at a block's boundary, at their end, or because they were held back.
    ``members`` are sorted, oldest first.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.members: list[Sequence] = []
        self._due: dict[int, list[Sequence]] = {}
        self._rows: tuple[Sequence, ...] | None = None
        self._bases: tuple[int, ...] = ()

    def __contains__(self, sequence: Sequence) -> bool:
        return sequence.clock is self.clock

    def add(self, sequence: Sequence) -> None:
        """Let ``sequence`` decode from the next step on; it is due then."""
        self._set_clock(sequence, self.clock)
        insort(self.members, sequence, key=by_order)
        self.wake(sequence, 0)

    def remove(self, sequence: Sequence) -> None:
        """Let ``sequence`` stop where it is."""
        self._set_clock(sequence, STILL)
        self.members.remove(sequence)

    def wake(self, sequence: Sequence, after: int) -> None:
        """``sequence`` is due when ``after`` more tokens of it have been scheduled."""
        sequence.due = self.clock.ticks + after
        self._due.setdefault(sequence.due, []).append(sequence)

    def due(self) -> list[Sequence]:
        """The members due in this step, oldest first; each is told once."""
        due = []
        for sequence in self._due.pop(self.clock.ticks, ()):
            if sequence.due == self.clock.ticks and sequence.clock is self.clock:
                sequence.due = -1
                due.append(sequence)
        due.sort(key=by_order)
        return due

    def advance(self, held: list[Sequence]) -> tuple[tuple[Sequence, ...], tuple[int, ...]]:
        """One token of every member but ``held``, which are due again; their positions are the bases plus the tick."""
        if held or self._rows is None:
            self._rows = tuple([member for member in self.members if member not in held] if held else self.members)
            self._bases = tuple([member.base for member in self._rows])
        rows = self._rows
        if rows:
            self.clock.ticks += 1
        for sequence in held:
            sequence.base -= bool(rows)
            self.wake(sequence, 0)
            self._rows = None
        return rows, self._bases

    def _set_clock(self, sequence: Sequence, clock: Clock) -> None:
        computed = sequence.num_computed
        sequence.clock = clock
        sequence.num_computed = computed
        self._rows = None

"""The queue of sequences that wait for a place."""

from __future__ import annotations

from heapq import heappop, heappush

from velollm_core.engine.sequence import Sequence


class WaitingQueue:
    """First come, first served within a priority; one level of priority is worth ``patience`` arrivals.

    A sequence keeps its place for life, so one that was preempted comes back before all that arrived after it.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._arrivals = 0
        self._heap: list[tuple[tuple[int, int], Sequence]] = []
        self._removed: set[Sequence] = set()

    def __len__(self) -> int:
        return len(self._heap) - len(self._removed)

    def register(self, sequence: Sequence) -> None:
        """Give ``sequence`` its place; lower ``priority`` numbers come first."""
        self._arrivals += 1
        sequence.order = (self._arrivals + sequence.priority * self._patience, self._arrivals)

    def push(self, sequence: Sequence) -> None:
        """Let ``sequence`` wait at its place."""
        heappush(self._heap, (sequence.order, sequence))

    def peek(self) -> Sequence | None:
        """The next to be admitted."""
        while self._heap:
            sequence = self._heap[0][1]
            if sequence not in self._removed:
                return sequence
            heappop(self._heap)
            self._removed.remove(sequence)
        return None

    def pop(self) -> None:
        """Take away what `peek` gave."""
        heappop(self._heap)

    def remove(self, sequence: Sequence) -> None:
        """Forget ``sequence``, which waits."""
        self._removed.add(sequence)

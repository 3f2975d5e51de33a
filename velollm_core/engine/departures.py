"""Steps in flight, and the sequences that must outlive them."""

from __future__ import annotations

from collections import deque

from velollm_core.engine.sequence import Sequence


class Departures:
    """Keeps a sequence's blocks until the last step that may touch them has retired."""

    def __init__(self) -> None:
        self.launched = 0
        self.retired = 0
        self._leaving: deque[tuple[int, Sequence]] = deque()

    def __len__(self) -> int:
        return len(self._leaving)

    def __contains__(self, sequence: Sequence) -> bool:
        return any(leaving is sequence for _, leaving in self._leaving)

    def leave(self, sequence: Sequence, after: int) -> None:
        """``sequence`` goes once step ``after`` has retired."""
        self._leaving.append((after, sequence))

    def retire(self, step: int) -> None:
        """The oldest step in flight is over.

        Raises:
            ValueError: steps are not retired in the order of their launch.
        """
        if step != self.retired + 1 or step > self.launched:
            raise ValueError(f"step {step} retired after {self.retired}, with {self.launched} launched")
        self.retired = step

    def take(self) -> list[Sequence]:
        """The sequences whose last step has retired."""
        gone = [sequence for after, sequence in self._leaving if after <= self.retired]
        if gone:
            self._leaving = deque((after, seq) for after, seq in self._leaving if after > self.retired)
        return gone

"""Who wants to know how a run goes on: the progress bar, the file of samples."""

from __future__ import annotations

from typing import Protocol

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.sample import Sample


class Listener(Protocol):
    """Told of each phase before it begins and of each sample when it is finished; must not take long."""

    def phase(self, name: str, total: int) -> None:
        """``name`` begins; it has ``total`` samples, 0 where that is not known."""

    def sample(self, sample: Sample) -> None:
        """``sample`` is finished, warm-up and failures among them."""

    def block(self, block: Block) -> None:
        """``block`` is finished; all its samples came before."""


class Silent:
    """Listens to nothing."""

    def phase(self, name: str, total: int) -> None:
        """Say nothing."""

    def sample(self, sample: Sample) -> None:
        """Say nothing."""

    def block(self, block: Block) -> None:
        """Say nothing."""


class Chorus:
    """Passes everything on to several listeners."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def phase(self, name: str, total: int) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.phase(name, total)

    def sample(self, sample: Sample) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.sample(sample)

    def block(self, block: Block) -> None:
        """Tell all."""
        for listener in self._listeners:
            listener.block(block)

"""The pace of sequences that decode together."""

from __future__ import annotations

from attrs import define


@define(eq=False)
class Clock:
    """Decode steps so far. Whoever decodes by this clock has one token more computed with every tick."""

    ticks: int = 0


STILL = Clock()
"""The clock of those that do not decode."""

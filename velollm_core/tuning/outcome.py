"""What a tuning came to: race, final and answers in one choice."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from velollm_core.autopilot.outcome import Outcome
from velollm_core.autopilot.prediction import Foreseen
from velollm_core.benchmark.comparison import Comparison
from velollm_core.benchmark.quality import Quality
from velollm_core.tuning.pruning import Pruned
from velollm_core.tuning.trial import Trial


@frozen
class Tuned:
    """``chosen`` is what to run, ``winner`` or ``today``; ``reason`` says why.

    ``trials`` are all of the race, refused ones among them; ``pruned`` was never measured, ``unfinished`` are stages
    that the budget cut off. ``final`` is the winner against today's settings on data of its own, ``quality`` the
    comparison of answers where settings can change them. ``samples`` is the folder of raw samples.
    """

    chosen: str
    reason: str
    today: str
    winner: str
    trials: tuple[Trial, ...]
    pruned: tuple[Pruned, ...]
    unfinished: tuple[str, ...]
    quality: Quality | None
    final: Outcome
    foreseen: tuple[Foreseen, ...]
    samples: Path

    @property
    def comparison(self) -> Comparison | None:
        """The final's verdict on speed; None where nothing was compared."""
        return self.final.comparison

    @property
    def changes(self) -> bool:
        """Whether the winner is to be used."""
        return self.chosen == self.winner

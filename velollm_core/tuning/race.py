"""Successive halving over rounds of restart blocks: every candidate in a round is measured once, in random order."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Sequence
from statistics import fmean

from attrs import define, field

from velollm_core.tuning.candidate import Candidate

# Time of a request, in seconds; None where the candidate does not load or cannot be timed: then it is out of the race.
Measure = Callable[[Candidate, str, int], Awaitable[float | None]]

# Who is this far behind (in ln of time) after a round is not worth another: noise of a few per cent stays below.
CLEAR = 0.12
# Closer than this the earlier one stays: changing a setting must be for something.
TIE = 0.01
LEAST_ROUNDS = 2


@define
class Race:
    """Finds the fastest of a field. ``more`` says whether time is left; ``seed`` decides the order within rounds.

    The figures only decide who is measured on: what is claimed in the end is measured anew.
    """

    measure: Measure
    more: Callable[[], bool]
    seed: str
    unfinished: list[str] = field(factory=list)

    async def best(self, stage: str, candidates: Sequence[Candidate]) -> Candidate | None:
        """The winner of ``candidates``, the first of which runs already; None where none of them can be measured.

        Where time runs out, the leader after the last whole round; without one, the first.
        """
        running, times, number = list(candidates), dict[str, list[float]](), 0
        while running and not _decided(running, times, number):
            if not await self._round(stage, number, running, times):
                self.unfinished.append(stage)
                return _ranked(running, times, number)[0] if number else running[0]
            number += 1
            running = _survivors(running, times, number)
        return running[0] if running else None

    async def _round(self, stage: str, number: int, running: list[Candidate], times: dict[str, list[float]]) -> bool:
        """Measure each of ``running`` once, dropping those that cannot be; False where time ran out before the end."""
        order = list(running)
        random.Random(f"{self.seed}/{stage}/{number}").shuffle(order)
        for candidate in order:
            if not self.more():
                return False
            seconds = await self.measure(candidate, stage, number)
            if seconds is None:
                running.remove(candidate)
            else:
                times.setdefault(candidate.name, []).append(math.log(seconds))
        return True


def _decided(running: Sequence[Candidate], times: dict[str, list[float]], number: int) -> bool:
    """Whether one is left, and has been seen to run where there was a choice."""
    return len(running) == 1 and (number > 0 or not times)


def _survivors(running: Sequence[Candidate], times: dict[str, list[float]], rounds: int) -> list[Candidate]:
    """The better half without those clearly behind; of the last two the winner, in doubt the earlier one."""
    if not running:
        return []
    ranked = _ranked(running, times, rounds)
    lead = _time(ranked[0], times)
    if len(ranked) == 1 or (len(ranked) == 2 and rounds >= LEAST_ROUNDS):
        close = [each for each in running if _time(each, times) - lead <= TIE]
        return close[:1]
    keep = max(2, math.ceil(len(ranked) / 2))
    near = [each for each in ranked[:keep] if _time(each, times) - lead <= CLEAR]
    return [each for each in running if each in near]


def _ranked(running: Sequence[Candidate], times: dict[str, list[float]], rounds: int) -> list[Candidate]:
    # An unfinished round has seen some of them and not others: only whole rounds are compared.
    return sorted(running, key=lambda each: fmean(times[each.name][:rounds]))


def _time(candidate: Candidate, times: dict[str, list[float]]) -> float:
    return fmean(times[candidate.name])

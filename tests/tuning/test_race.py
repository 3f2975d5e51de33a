"""Successive halving: who stays, who leaves, what it costs."""

from __future__ import annotations

import asyncio
import random

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.tuning.candidate import Candidate
from velollm_core.tuning.race import TIE, Race


@define
class Track:
    """Candidates whose times are known; None cannot start. ``patience`` bounds the measurements."""

    times: dict[str, float | None]
    patience: int = 1000
    sigma: float = 0.0
    asked: list[str] = field(factory=list)

    async def measure(self, candidate: Candidate, stage: str, number: int) -> float | None:
        self.asked.append(candidate.name)
        seconds = self.times[candidate.name]
        noise = random.Random(f"{stage}/{number}/{candidate.name}").lognormvariate(0, self.sigma)
        return None if seconds is None else seconds * noise

    def run(self) -> tuple[str | None, Race]:
        race = Race(self.measure, lambda: len(self.asked) < self.patience, "seed")
        found = asyncio.run(race.best("stage", [Candidate(name, ()) for name in self.times]))
        return (found.name if found else None), race


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(0.1, 10.0)), min_size=2, max_size=9))
def test_without_noise_the_fastest_wins_and_few_are_measured_twice(times: list[float | None]) -> None:
    track = Track({str(number): seconds for number, seconds in enumerate(times)})
    winner, race = track.run()
    known = [seconds for seconds in times if seconds is not None]
    assert not race.unfinished
    if not known:
        assert winner is None
        return
    assert winner is not None
    found = track.times[winner]
    assert found is not None
    assert found <= min(known) * (1 + 2 * TIE)
    assert len(track.asked) <= 2 * len(times) + 2


def test_one_clearly_ahead_is_measured_once() -> None:
    track = Track({"planned": 2.0, "a": 1.0, "b": 3.0})
    assert track.run()[0] == "a"
    assert len(track.asked) == 3


def test_in_doubt_the_earlier_one_stays() -> None:
    assert Track({"planned": 1.0, "a": 0.995}).run()[0] == "planned"
    assert Track({"planned": 1.0, "a": 0.9}).run()[0] == "a"


def test_who_runs_alone_is_not_measured() -> None:
    track = Track({"planned": 1.0})
    assert track.run()[0] == "planned"
    assert not track.asked


@pytest.mark.parametrize(("patience", "winner"), [(0, "planned"), (1, "planned"), (3, "a"), (4, "a")])
def test_without_time_the_leader_of_the_last_whole_round_wins(patience: int, winner: str) -> None:
    found, race = Track({"planned": 1.0, "b": 1.05, "a": 0.95}, patience).run()
    assert found == winner
    assert race.unfinished == ["stage"]


def test_noise_of_a_few_per_cent_does_not_hide_a_quarter() -> None:
    times: dict[str, float | None] = {"planned": 1.0, "a": 0.75, "b": 1.1, "c": 1.02, "d": 0.97}
    assert Track(times, sigma=0.05).run()[0] == "a"

"""Requests over time: bursts, steady streams, ramps, and lists that were recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random

from attrs import evolve, frozen

from velollm_core.errors import VeloError

MOST = 1_000_000
"""Requests that a load may have."""


@frozen
class Arrival:
    """One request: when it comes, in seconds from the start, and how long it is, in tokens.

    The first ``shared_prefix`` tokens of its prompt are those of every other request.
    """

    at: float
    prompt_tokens: int
    output_tokens: int
    shared_prefix: int = 0
    priority: int = 0

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.at < math.inf and 0 <= self.shared_prefix < self.prompt_tokens and self.output_tokens > 0):
            raise VeloError(f"a request needs a time from 0 on, a prompt beyond its prefix, an answer; found {self}")


@frozen
class Lengths:
    """Uniform ranges of prompt and answer, in tokens, both ends included."""

    prompt: tuple[int, int] = (100, 1024)
    output: tuple[int, int] = (100, 1024)
    shared_prefix: int = 0

    def draw(self, random: Random, at: float) -> Arrival:
        """A request at ``at`` seconds; its prompt is at least one token longer than the shared prefix."""
        prompt = max(random.randint(*self.prompt), self.shared_prefix + 1)
        return Arrival(at, prompt, random.randint(*self.output), self.shared_prefix)


def burst(count: int, lengths: Lengths, *, seed: int = 0) -> tuple[Arrival, ...]:
    """``count`` requests at once.

    Raises:
        VeloError: there are more than `MOST`.
    """
    _bound(count, f"{count} requests at once")
    random = Random(seed)
    return tuple(lengths.draw(random, 0.0) for _ in range(count))


def steady(rate: float, seconds: float, lengths: Lengths, *, seed: int = 0) -> tuple[Arrival, ...]:
    """Requests at ``rate`` a second on average, independent of each other (Poisson)."""
    return ramp(rate, rate, seconds, lengths, seed=seed)


def ramp(first: float, last: float, seconds: float, lengths: Lengths, *, seed: int = 0) -> tuple[Arrival, ...]:
    """A rate that goes from ``first`` to ``last`` requests a second within ``seconds``.

    Raises:
        VeloError: no rate, no time, or more than `MOST` requests.
    """
    random, highest = Random(seed), max(first, last)
    if not (highest > 0 and min(first, last) >= 0 and seconds > 0):
        raise VeloError(f"a load needs a rate and a duration above 0, found {first} to {last} a second for {seconds} s")
    _bound(highest * seconds, f"{highest:g} requests a second for {seconds:g} s")
    arrivals = []
    at = random.expovariate(highest)
    while at < seconds:
        request = lengths.draw(random, at)
        # Thinning: candidates come at the highest rate, and are kept as often as the rate at their time wants.
        if random.random() * highest <= first + (last - first) * at / seconds:
            arrivals.append(request)
        at += random.expovariate(highest)
    return tuple(arrivals)


def replay(recorded: Iterable[Arrival], *, speed: float = 1.0) -> tuple[Arrival, ...]:
    """A recorded list in order of time, ``speed`` times as fast."""
    if speed <= 0:
        raise VeloError(f"a replay needs a speed above 0, found {speed}")
    ordered = sorted(recorded, key=lambda arrival: arrival.at)
    return tuple(evolve(arrival, at=arrival.at / speed) for arrival in ordered)


def _bound(count: float, load: str) -> None:
    if not count <= MOST:
        raise VeloError(f"{load} are too many to go through: {MOST} at most")

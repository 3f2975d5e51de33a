"""When requests are meant to be sent, whatever the server does."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, count, islice, takewhile
from typing import Literal

from attrs import field, frozen, validators

from velollm_core.errors import VeloError

Pattern = Literal["constant", "poisson", "gamma", "burst", "ramp", "replay"]
PATTERNS: tuple[Pattern, ...] = ("constant", "poisson", "gamma", "burst", "ramp", "replay")


@frozen
class Arrivals:
    """An open loop: requests come at ``rate`` a second on average, however many are still unanswered.

    ``gamma`` gaps have the shape ``burstiness``: 1 is a Poisson process, less comes in clumps, more evens out.
    ``burst`` requests come at the same moment in a ``burst`` pattern. A ``ramp`` is a Poisson process that goes from
    ``rate`` to ``end_rate``. A ``replay`` sends at ``times``, seconds from its begin.
    """

    pattern: Pattern
    rate: float = field(default=1.0, validator=validators.gt(0))
    burstiness: float = field(default=1.0, validator=validators.gt(0))
    burst: int = field(default=1, validator=validators.ge(1))
    end_rate: float | None = None
    times: tuple[float, ...] = ()

    def __str__(self) -> str:
        if self.pattern == "replay":
            return f"{len(self.times)} recorded arrivals"
        if self.pattern == "ramp":
            return f"ramp from {self.rate:g} to {self.end_rate:g} requests/s"
        detail = {"gamma": f", burstiness {self.burstiness:g}", "burst": f", {self.burst} at a time"}.get(
            self.pattern, ""
        )
        return f"{self.pattern} arrivals, {self.rate:g} requests/s{detail}"


def arrival_times(arrivals: Arrivals, seconds: float, seed: int = 0, most: int | None = None) -> list[float]:
    """The intended sends of the first ``seconds``, sorted, ``most`` of them; the same for the same ``seed``.

    Raises:
        VeloError: a ramp without its end, or a replay without times.
    """
    # A day's worth of arrivals is never made where only the first hundred are asked for.
    return list(islice(_times(arrivals, seconds, random.Random(seed)), most))


def _times(arrivals: Arrivals, seconds: float, rng: random.Random) -> Iterable[float]:
    if arrivals.pattern == "replay":
        if not arrivals.times:
            raise VeloError("a replay needs recorded times: a file whose lines carry a timestamp")
        return (time for time in sorted(arrivals.times) if time < seconds)
    if arrivals.pattern == "ramp":
        return _ramp(arrivals, seconds, rng)
    if arrivals.pattern == "burst":
        waves = takewhile(lambda time: time < seconds, (wave * arrivals.burst / arrivals.rate for wave in count()))
        return (time for time in waves for _ in range(arrivals.burst))
    gaps: dict[Pattern, Callable[[], float]] = {
        "constant": lambda: 1 / arrivals.rate,
        "poisson": lambda: rng.expovariate(arrivals.rate),
        "gamma": lambda: rng.gammavariate(arrivals.burstiness, 1 / (arrivals.rate * arrivals.burstiness)),
    }
    gap = gaps[arrivals.pattern]
    first = 0.0 if arrivals.pattern == "constant" else gap()
    return takewhile(lambda time: time < seconds, accumulate(_forever(gap), initial=first))


def _ramp(arrivals: Arrivals, seconds: float, rng: random.Random) -> Iterable[float]:
    """A Poisson process of the highest rate, thinned to the rate of each moment (Lewis and Shedler, 1979)."""
    if arrivals.end_rate is None or arrivals.end_rate <= 0:
        raise VeloError("a ramp needs the rate it ends with")
    highest = max(arrivals.rate, arrivals.end_rate)
    times = takewhile(lambda time: time < seconds, accumulate(_forever(lambda: rng.expovariate(highest))))
    slope = (arrivals.end_rate - arrivals.rate) / seconds
    return (time for time in times if rng.random() * highest < arrivals.rate + slope * time)


def _forever(gap: Callable[[], float]) -> Iterator[float]:
    while True:
        yield gap()

"""A distribution in a few figures, none of them beyond what the number of values carries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean, stdev

from attrs import frozen

from velollm_core.figures import Interval


@frozen
class Percentiles:
    """``n`` values: percentiles by nearest rank, each only from n ≥ 1 / (1 − p): p90 from 10, p99 from 100.

    ``p50_interval`` holds the true median with 95% confidence, by order statistics; None below six values.
    """

    n: int
    mean: float
    minimum: float
    p50: float
    p90: float | None
    p99: float | None
    maximum: float
    deviation: float | None = None
    p50_interval: Interval | None = None


def summarise(values: Iterable[float]) -> Percentiles | None:
    """The figures of ``values``; None where there is none."""
    ordered = sorted(values)
    if not ordered:
        return None
    n = len(ordered)
    return Percentiles(
        n=n,
        mean=fmean(ordered),
        minimum=ordered[0],
        p50=nearest_rank(ordered, 0.5),
        p90=nearest_rank(ordered, 0.9) if n >= 10 else None,
        p99=nearest_rank(ordered, 0.99) if n >= 100 else None,
        maximum=ordered[-1],
        deviation=stdev(ordered) if n > 1 else None,
        p50_interval=median_interval(ordered),
    )


def nearest_rank(ordered: Sequence[float], quantile: float) -> float:
    """The smallest of the sorted values with at least ``quantile`` of them at or below it; always one that occurred."""
    rank = math.ceil(round(quantile * len(ordered), 9))
    return ordered[max(rank, 1) - 1]


def median_interval(ordered: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The order statistics that hold the true median, whatever the distribution (binomial, Conover 1999, 3.2)."""
    n = len(ordered)
    tail = (1 - confidence) / 2
    if n < 6:
        return None
    if n > 200:
        z = NormalDist().inv_cdf(1 - tail)
        skip = math.floor(n / 2 - z * math.sqrt(n) / 2 - 0.5)
    else:
        skip, below = 0, 2.0**-n
        while below + math.comb(n, skip + 1) * 2.0**-n <= tail:
            skip += 1
            below += math.comb(n, skip) * 2.0**-n
    return Interval(ordered[skip], ordered[n - 1 - skip])

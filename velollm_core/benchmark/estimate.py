"""A centre with its confidence interval, by a method that is honest for few values and long tails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations_with_replacement
from statistics import NormalDist, fmean, median, stdev
from typing import Literal

from attrs import frozen

from velollm_core.benchmark.student import student_quantile
from velollm_core.figures import Interval

Method = Literal["student_t", "sign_flip", "welch", "none"]

CONFIDENCE = 0.95
FEW = 6
EXACT = 80


@frozen
class Estimate:
    """The centre of ``count`` values; ``interval`` is None below two of them.

    ``degrees`` are the degrees of freedom behind the interval's width.
    """

    value: float
    interval: Interval | None
    count: int
    method: Method
    degrees: int

    @property
    def spread(self) -> float | None:
        """The standard deviation of normal values that would give an interval as wide; None without one."""
        if self.interval is None:
            return None
        half = (self.interval.high - self.interval.low) / 2
        return half * math.sqrt(self.count) / student_quantile((1 + CONFIDENCE) / 2, self.degrees)


def estimate_centre(values: Sequence[float]) -> Estimate:
    """The centre of ``values`` with its 95% interval: mean and Student's t below six, from six by sign flips.

    From six values the sign-flip test on ranks (Wilcoxon's) is inverted: the estimate is the median of all averages of
    two values (Hodges and Lehmann), the interval runs between two of them. It is exact for errors that are as often
    above as below, whatever their tails, and one wild value moves it little. With five values no sign-flip test can
    reach 95% (p ≥ 1/16).
    """
    count = len(values)
    if count < 2:
        return Estimate(fmean(values), None, count, "none", 0)
    if count < FEW:
        mean = fmean(values)
        half = student_quantile((1 + CONFIDENCE) / 2, count - 1) * stdev(values) / math.sqrt(count)
        return Estimate(mean, Interval(mean - half, mean + half), count, "student_t", count - 1)
    averages = sorted((one + other) / 2 for one, other in combinations_with_replacement(values, 2))
    cut = _signed_rank_cut(count)
    interval = Interval(averages[cut - 1], averages[-cut])
    return Estimate(median(averages), interval, count, "sign_flip", count - 1)


def estimate_difference(strata: Sequence[tuple[Sequence[float], Sequence[float]]], extra: float = 0.0) -> Estimate:
    """Mean of the second group minus mean of the first, averaged over ``strata``, by Welch's t.

    Groups are independent; each stratum weighs the same. ``extra`` widens the interval on either side. ``count`` is
    that of the smallest group.
    """
    groups = [group for stratum in strata for group in stratum]
    count = min(len(group) for group in groups)
    difference = fmean(fmean(second) - fmean(first) for first, second in strata)
    if count < 2:
        return Estimate(difference, None, count, "none", 0)
    parts = [stdev(group) ** 2 / len(group) / len(strata) ** 2 for group in groups]
    degrees = _welch_degrees(parts, [len(group) for group in groups])
    half = student_quantile((1 + CONFIDENCE) / 2, degrees) * math.sqrt(sum(parts)) + extra
    return Estimate(difference, Interval(difference - half, difference + half), count, "welch", degrees)


def detectable(spread: float, count: int, *, power: float = 0.8) -> float:
    """The least difference that ``count`` values of this ``spread`` would show with probability ``power``."""
    degrees = count - 1
    reach = student_quantile((1 + CONFIDENCE) / 2, degrees) + student_quantile(power, degrees)
    return reach * spread / math.sqrt(count)


def count_needed(spread: float, difference: float, limit: int = 100_000) -> int | None:
    """How many values of this ``spread`` would show ``difference`` with 80% power; None above ``limit``."""
    low, high = 2, 2
    while detectable(spread, high) > difference:
        low, high = high, high * 2
        if high > limit:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if detectable(spread, middle) > difference else (low, middle)
    return high


def _welch_degrees(parts: Sequence[float], counts: Sequence[int]) -> int:
    total = sum(parts)
    if total == 0:
        return min(counts) - 1
    # Rounded down: the exact t sums want whole degrees, and fewer degrees only widen the interval.
    return max(1, int(total**2 / sum(part**2 / (count - 1) for part, count in zip(parts, counts, strict=True))))


@lru_cache
def _signed_rank_cut(count: int) -> int:
    """How many averages to leave out at either end, plus one: the largest k with P(W < k) ≤ 2.5% for W of ``count``."""
    tail = (1 - CONFIDENCE) / 2
    if count > EXACT:
        whole, deviation = count * (count + 1), math.sqrt(count * (count + 1) * (2 * count + 1) / 24)
        return int(whole / 4 - NormalDist().inv_cdf(1 - tail) * deviation)
    # ways[w]: how many of the 2^count sign patterns give the rank sum w.
    ways = [1]
    for rank in range(1, count + 1):
        longer = ways + [0] * rank
        for total, number in enumerate(ways):
            longer[total + rank] += number
        ways = longer
    cut, below = 0, 0
    while below + ways[cut] <= tail * 2**count:
        below += ways[cut]
        cut += 1
    return cut

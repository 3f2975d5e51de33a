"""A mean with its confidence interval, by a method that is honest for few values."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean, stdev
from typing import Literal

from attrs import frozen

from velollm_core.benchmark.student import student_quantile
from velollm_core.figures import Interval

Method = Literal["student_t", "sign_flip", "welch", "none"]

CONFIDENCE = 0.95
FEW = 6
ENUMERATED = 12
SUBSETS = 3999


@frozen
class Estimate:
    """The mean of ``count`` values; ``interval`` and ``spread`` (standard deviation) are None below two values.

    ``degrees`` are the degrees of freedom that the spread was estimated with.
    """

    value: float
    interval: Interval | None
    spread: float | None
    count: int
    method: Method
    degrees: int


def estimate_mean(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The mean of ``values``: by Student's t below six, from six by inverting the sign-flip test.

    Below six values the sign-flip test cannot reach 95% (five give p ≥ 1/16). From six the interval is made of order
    statistics of subset means, Hartigan's typical values (J. Am. Stat. Assoc. 64, 1969): the true mean of independent
    symmetric errors lies in each gap between them with equal probability, whatever their distribution.
    """
    count = len(values)
    mean = fmean(values)
    if count < 2:
        return Estimate(mean, None, None, count, "none", 0)
    spread = stdev(values)
    if count < FEW:
        half = student_quantile((1 + confidence) / 2, count - 1) * spread / math.sqrt(count)
        return Estimate(mean, Interval(mean - half, mean + half), spread, count, "student_t", count - 1)
    return Estimate(mean, _typical_interval(values, confidence), spread, count, "sign_flip", count - 1)


def estimate_difference(
    first: Sequence[float], second: Sequence[float], confidence: float = CONFIDENCE, extra: float = 0.0
) -> Estimate:
    """Mean of ``second`` minus mean of ``first``, independent groups, by Welch's t; ``extra`` widens either side."""
    count = min(len(first), len(second))
    difference = fmean(second) - fmean(first)
    if count < 2:
        return Estimate(difference, None, None, count, "none", 0)
    parts = [stdev(group) ** 2 / len(group) for group in (first, second)]
    error = math.sqrt(sum(parts))
    degrees = _welch_degrees(parts, [len(first), len(second)])
    half = student_quantile((1 + confidence) / 2, degrees) * error + extra
    interval = Interval(difference - half, difference + half)
    return Estimate(difference, interval, error * math.sqrt(count), count, "welch", degrees)


def detectable(spread: float, count: int, *, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The least difference that ``count`` values of this ``spread`` would show with probability ``power``."""
    degrees = count - 1
    reach = student_quantile((1 + confidence) / 2, degrees) + student_quantile(power, degrees)
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


def _typical_interval(values: Sequence[float], confidence: float) -> Interval:
    means = sorted(_subset_means(values))
    cut = max(1, int((1 - confidence) / 2 * (len(means) + 1)))
    return Interval(means[cut - 1], means[-cut])


def _subset_means(values: Sequence[float]) -> list[float]:
    count = len(values)
    if count <= ENUMERATED:
        return [total / size for total, size in zip(_sums(values)[1:], _sizes(count)[1:], strict=True)]
    # Sums of eight values at a time are looked up: a subset of forty costs five additions.
    tables = [_sums(values[start : start + 8]) for start in range(0, count, 8)]
    return [
        sum(table[index] for table, index in zip(tables, indices, strict=True)) / size
        for indices, size in _random_subsets(count)
    ]


def _sums(values: Sequence[float]) -> list[float]:
    sums = [0.0]
    for value in values:
        sums += [total + value for total in sums]
    return sums


@lru_cache
def _sizes(count: int) -> tuple[int, ...]:
    return tuple(subset.bit_count() for subset in range(2**count))


@lru_cache
def _random_subsets(count: int) -> tuple[tuple[tuple[int, ...], int], ...]:
    # Seeded: the same samples must give the same verdict each time they are judged.
    rng = random.Random(count)
    masks: set[int] = set()
    while len(masks) < SUBSETS:
        masks.add(rng.getrandbits(count))
        masks.discard(0)
    return tuple(
        (tuple(mask >> start & 255 for start in range(0, count, 8)), mask.bit_count()) for mask in sorted(masks)
    )

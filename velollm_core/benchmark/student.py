"""Student's t distribution, as much of it as a confidence interval needs."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

MANY = 1000


def student_cdf(t: float, degrees: int) -> float:
    """P(T ≤ t) for whole ``degrees`` of freedom ≥ 1.

    The finite sums of Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 (odd) and 26.7.4 (even):
    exact up to rounding, no series to truncate.
    """
    theta = math.atan(t / math.sqrt(degrees))
    cosine = math.cos(theta)
    odd = degrees % 2 == 1
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(3 if odd else 2, degrees - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
    return (1 + inside) / 2


@lru_cache(maxsize=1024)
def student_quantile(probability: float, degrees: int) -> float:
    """The t with P(T ≤ t) = ``probability``, 0.5 ≤ probability < 1, by bisection to 12 digits.

    Above 1 000 degrees by the expansion 26.7.5 about the normal quantile, to 6 digits and more.
    """
    if degrees < 1 or not 0.5 <= probability < 1:
        raise ValueError(f"no t quantile for probability {probability} and {degrees} degrees of freedom")
    if degrees > MANY:
        z = NormalDist().inv_cdf(probability)
        return z + (z**3 + z) / (4 * degrees)
    low, high = 0.0, 1.0
    while student_cdf(high, degrees) < probability:
        low, high = high, high * 2
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if student_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2

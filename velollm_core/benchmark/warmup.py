"""Warming up until the times are steady, not for a count of requests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from attrs import frozen

from velollm_core.benchmark.student import student_quantile


@frozen
class WarmUpRule:
    """Stop when the last ``window`` requests agree: deviation at most ``tolerance`` of their mean, and no trend.

    Never more than ``max_requests`` or ``max_seconds``. ``max_tokens`` keeps each of them short. With a ``window`` of 1
    one request is enough.
    """

    window: int = 4
    tolerance: float = 0.03
    max_requests: int = 10
    max_seconds: float = 60.0
    max_tokens: int = 24

    def __str__(self) -> str:
        if self.window == 1:
            return "one request"
        return (
            f"the last {self.window} requests within {self.tolerance:.0%} and without trend, "
            f"at most {self.max_requests} requests or {self.max_seconds:g} s"
        )


# After a restart, when the same was done a minute ago: one whole prompt touches what the engine has allocated.
BRIEF = WarmUpRule(window=1, max_requests=1, max_tokens=4)


@frozen
class WarmUp:
    """How the warm-up ended: ``requests`` sent, whether the times were ``stable``, ``seconds`` it took.

    ``first_seconds`` is the very first request with everything that was loaded for it, ``load_seconds`` the load time
    as the server tells it; ``overhead_tokens`` the prompt tokens of a request without a prompt to speak of.
    """

    requests: int
    stable: bool
    seconds: float
    rule: str
    first_seconds: float | None = None
    load_seconds: float | None = None
    overhead_tokens: int | None = None


def is_stable(seconds: Sequence[float], rule: WarmUpRule) -> bool:
    """Whether the last ``rule.window`` times agree with each other and show no trend (95%, two-sided)."""
    last = seconds[-rule.window :]
    if len(last) < rule.window or min(last) <= 0:
        return False
    return len(last) == 1 or (stdev(last) <= rule.tolerance * fmean(last) and not has_trend(last))


def has_trend(values: Sequence[float]) -> bool:
    """Whether the slope of ``values`` over their order differs from zero with 95% confidence."""
    n = len(values)
    if n < 3:
        return False
    middle, mean = (n - 1) / 2, fmean(values)
    spread = sum((place - middle) ** 2 for place in range(n))
    slope = sum((place - middle) * (value - mean) for place, value in enumerate(values)) / spread
    residual = sum((value - mean - slope * (place - middle)) ** 2 for place, value in enumerate(values))
    error = math.sqrt(max(residual, 0.0) / (n - 2) / spread)
    return abs(slope) > student_quantile(0.975, n - 2) * error and abs(slope) * (n - 1) > 1e-9 * abs(mean)

"""Two configurations compared: a ratio, how sure it is, and a verdict by a rule stated beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

from velollm_core.benchmark.estimate import (
    CONFIDENCE,
    Estimate,
    Method,
    count_needed,
    detectable,
    estimate_centre,
    estimate_difference,
)
from velollm_core.figures import Interval

Verdict = Literal["faster", "slower", "equivalent", "not_enough_evidence"]

DELTA = 0.02


@frozen
class Comparison:
    """How fast the second configuration is over the first: ``ratio`` > 1 means faster.

    ``interval`` holds the true ratio with probability ``confidence``. ``minimum_detectable_effect`` is the relative
    difference that this many pairs of this spread show four times out of five; ``pairs_needed`` would show one of
    ``delta``. ``accepted`` is the stricter question whether a setting should be changed for it: the lower bound above
    1 + ``delta``. Figures that the data cannot give are None.
    """

    metric: str
    verdict: Verdict
    ratio: float
    interval: Interval | None
    confidence: float
    delta: float
    pairs: int
    spread: float | None
    minimum_detectable_effect: float | None
    pairs_needed: int | None
    method: Method
    accepted: bool
    notes: tuple[str, ...] = ()


def compare_pairs(
    metric: str, log_ratios: Sequence[float], *, delta: float = DELTA, notes: Sequence[str] = ()
) -> Comparison:
    """Judge interleaved pairs by their log-ratios ln(second speed / first speed), at least one."""
    return _judged(metric, estimate_centre(log_ratios), delta, notes)


def compare_strata(
    metric: str,
    strata: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    delta: float = DELTA,
    extra: float = 0.0,
    notes: Sequence[str] = (),
) -> Comparison:
    """Judge two sides that were not interleaved by the logs of their speeds, task by task.

    ``extra`` (a log-ratio, ≥ 0) is what may lie between them beside their speeds, such as a machine that is known to
    have changed; it widens the interval on either side.
    """
    comparison = _judged(metric, estimate_difference(strata, extra=extra), delta, notes)
    # What lies between the sides does not shrink with the number of values.
    return evolve(comparison, pairs_needed=None) if extra else comparison


def decide(interval: Interval | None, delta: float = DELTA) -> Verdict:
    """The rule: equivalent within 1 ± ``delta`` first, then faster above 1, slower below, else not enough evidence."""
    if interval is None:
        return "not_enough_evidence"
    if 1 - delta <= interval.low and interval.high <= 1 + delta:
        return "equivalent"
    if interval.low > 1:
        return "faster"
    if interval.high < 1:
        return "slower"
    return "not_enough_evidence"


def _judged(metric: str, estimate: Estimate, delta: float, notes: Sequence[str]) -> Comparison:
    interval = None
    if estimate.interval:
        interval = Interval(_ratio(estimate.interval.low), _ratio(estimate.interval.high))
    effect = needed = None
    if estimate.spread is not None:
        effect = _ratio(detectable(estimate.spread, estimate.count)) - 1
        needed = count_needed(estimate.spread, math.log1p(delta))
    return Comparison(
        metric=metric,
        verdict=decide(interval, delta),
        ratio=_ratio(estimate.value),
        interval=interval,
        confidence=CONFIDENCE,
        delta=delta,
        pairs=estimate.count,
        spread=estimate.spread,
        minimum_detectable_effect=effect,
        pairs_needed=needed,
        method=estimate.method,
        accepted=interval is not None and interval.low > 1 + delta,
        notes=tuple(notes),
    )


def _ratio(logarithm: float) -> float:
    # Two wild values give an interval beyond what a float can hold; JSON has no infinity.
    return math.exp(min(logarithm, 700.0))

"""The stretch of a load in which nothing but the load is measured: found by a stated test, not assumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean

from attrs import frozen

from velollm_core.benchmark.metrics import e2e, ttft
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.student import student_quantile
from velollm_core.benchmark.warmup import has_trend

SLICES = 8
GROWTH = 0.1
LEAST_GROWTH, RAMP_GROWTH = 0.01, 0.5
FEWEST = 10
# Failures of a server that has more to do than it can.
TOO_MUCH = frozenset({"timeout", "http_429", "http_503"})
RULE = (
    "begins when every user (or, in an open loop, one median request's time) is through its first request, ends with "
    "the last intended send; the output rate over eighths of it shows no trend (95%)"
)


@frozen
class Window:
    """Seconds since the run began; ``steady`` says whether the test was passed, ``reason`` why not.

    ``dropped`` counts the requests that were not sent within it.
    """

    start: float
    end: float
    steady: bool
    reason: str | None
    dropped: int
    rule: str = RULE

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


@frozen
class Saturation:
    """Whether the server fell behind: waiting times then grow with the length of the run, and say nothing else.

    ``growth`` is the seconds of TTFT (or, where only that grows, of E2E) added per second of run. ``delivered`` is what
    was answered of what was asked in the same time.
    """

    saturated: bool
    growth: float | None
    delivered: float | None
    text: str


def find_window(samples: Sequence[Sample], users: int, *, open_loop: bool) -> Window:
    """The window of ``samples``, all of one load; without a success it is empty."""
    good = sorted((s for s in samples if s.counts and s.timing.last is not None), key=lambda s: s.timing.intended)
    if not good:
        return Window(0.0, 0.0, steady=False, reason="no request succeeded", dropped=len(samples))
    ends = sorted(sample.timing.ended for sample in good)
    if open_loop:
        lasting = sorted(sample.timing.ended - sample.timing.intended for sample in good)
        start = good[0].timing.intended + lasting[len(lasting) // 2]
    else:
        start = ends[min(users, len(ends)) - 1]
    end = max(sample.timing.intended for sample in good)
    dropped = sum(not start <= sample.timing.intended <= end for sample in samples)
    if end - start < 0.5 * (end - good[0].timing.intended) or end <= start:
        return Window(
            start, max(start, end), steady=False, reason="the run is too short: most of it is ramp", dropped=dropped
        )
    rates = output_rates(good, start, end)
    if has_trend(rates) and max(rates) > (1 + GROWTH) * min(rates):
        change = f"from {rates[0]:.3g} to {rates[-1]:.3g} tokens/s"
        return Window(
            start, end, steady=False, reason=f"no steady state: the output rate goes {change}", dropped=dropped
        )
    return Window(start, end, steady=True, reason=None, dropped=dropped)


def output_rates(samples: Sequence[Sample], start: float, end: float, slices: int = SLICES) -> list[float]:
    """Output tokens a second in equal slices of the time from ``start`` to ``end``, by when their chunks came."""
    width = (end - start) / slices
    tokens = [0.0] * slices
    for sample in samples:
        timing = sample.timing
        each = (timing.completion_tokens or 0) / len(timing.arrivals)
        for place, arrival in enumerate(timing.arrivals):
            if start <= arrival < end:
                number = timing.chunk_tokens[place] if timing.chunk_tokens else each
                tokens[min(int((arrival - start) / width), slices - 1)] += number
    return [count / width for count in tokens]


def judge_saturation(samples: Sequence[Sample], window: Window, *, open_loop: bool = True) -> Saturation:
    """Look for waiting times that grow with the time of the intended send, and for answers that fall behind.

    Users who wait for their answers cannot ask for more than the server gives.
    """
    start, end, least = _judged(samples, window)
    inside = [s for s in samples if start <= s.timing.intended <= end]
    asked = sum(s.timing.failure is None or s.timing.failure.kind in TOO_MUCH for s in inside)
    answered = sum(start <= s.timing.ended <= end for s in samples if s.counts)
    delivered = answered / asked if asked else None
    if not open_loop:
        return Saturation(False, None, delivered, "users who wait for their answers set the pace")
    growths = {}
    for name, waited in (("TTFT", ttft), ("E2E", e2e)):
        points = [(s.timing.intended, wait) for s in inside if s.counts and (wait := waited(s.timing)) is not None]
        if len(points) < FEWEST:
            break
        growths[name], grows = _growth(points, end - start, least)
        if grows:
            text = f"over-saturated: {name} grows by {growths[name]:.3g} s a second; it measures the length of the run"
            return Saturation(True, growths[name], delivered, text)
    growth = growths.get("TTFT")
    # Two deviations of a count, beyond a tenth: some answers always end beyond the window.
    if least == LEAST_GROWTH and asked >= FEWEST and answered < (1 - GROWTH) * asked - 2 * math.sqrt(asked):
        text = f"over-saturated: {answered} of {asked} requests were answered in the time in which they were asked"
        return Saturation(True, growth, delivered, text)
    return Saturation(False, growth, delivered, "the server keeps up" if growths else "too few requests to tell")


def _judged(samples: Sequence[Sample], window: Window) -> tuple[float, float, float]:
    """Where to look for growth, and the least that is one: a run that is all ramp grows anyway, if less."""
    intended = [s.timing.intended for s in samples]
    if window.dropped < len(samples) / 2 or not intended:
        return window.start, window.end, LEAST_GROWTH
    return min(intended), max(intended), RAMP_GROWTH


def _growth(points: Sequence[tuple[float, float]], seconds: float, least: float) -> tuple[float, bool]:
    """Seconds of waiting added a second, and whether they tell of more work than can be done.

    A server that does the share c of the work lets waiting grow by 1 − c: more than ``least``, for certain (95%), and
    as much as half the mean over the run.
    """
    slope, error = _slope(points)
    lower = slope - student_quantile(0.975, len(points) - 2) * error
    return slope, lower > least and slope * seconds > fmean(wait for _, wait in points) / 2


def most_in_flight(samples: Sequence[Sample]) -> int:
    """How many requests were under way at the same time, at most."""
    moves = sorted([(s.timing.sent, 1) for s in samples] + [(s.timing.ended, -1) for s in samples])
    running = most = 0
    for _, step in moves:
        running += step
        most = max(most, running)
    return most


def gaps_between(times: Sequence[float]) -> list[float]:
    """Seconds from each of the sorted ``times`` to the next."""
    return [later - earlier for earlier, later in pairwise(times)]


def _slope(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    n = len(points)
    x, y = fmean(point[0] for point in points), fmean(point[1] for point in points)
    spread = sum((point[0] - x) ** 2 for point in points)
    if spread == 0:
        return 0.0, math.inf
    slope = sum((point[0] - x) * (point[1] - y) for point in points) / spread
    residual = sum((point[1] - y - slope * (point[0] - x)) ** 2 for point in points)
    return slope, math.sqrt(residual / (n - 2) / spread)

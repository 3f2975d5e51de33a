"""vLLM's Prometheus page as plain numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

SAMPLE = re.compile(r"(vllm:\w+)(?:\{([^}]*)\})?\s+(\S+)")
SUMMED = ("_total", "_count", "_sum")
LEFT_OUT = ("_bucket", "_created", "_info")


def read_metrics(page: str) -> dict[str, float]:
    """Counters, sums and gauges by their own name, ``vllm:`` kept; histogram buckets and creation times left out.

    Counters of several engines (data parallel) or label values are added up. A gauge must not be: where there are
    several of one name, each is given with its labels, as ``name{engine="0"}``.
    """
    counters: dict[str, float] = {}
    gauges: dict[str, dict[str, float]] = {}
    for name, labels, value in _samples(page):
        if name.endswith(SUMMED):
            counters[name] = counters.get(name, 0.0) + value
        else:
            gauges.setdefault(name, {})[labels] = value
    for name, values in gauges.items():
        if len(values) == 1:
            counters[name] = next(iter(values.values()))
        else:
            counters.update({f"{name}{{{labels}}}": value for labels, value in values.items()})
    return counters


def _samples(page: str) -> Iterator[tuple[str, str, float]]:
    for line in page.splitlines():
        match = SAMPLE.match(line)
        if match is None or match[1].endswith(LEFT_OUT):
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        if isfinite(value):
            yield match[1], match[2] or "", value

"""What a profile says of the device: when it was busy, and how long it waited between two steps."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from attrs import frozen

from velollm_core.errors import VeloError

WORK = {"kernel", "gpu_memcpy", "gpu_memset"}


@frozen
class Span:
    """One piece of work on the device; microseconds. All that a graph does has the number of its ``launch``."""

    name: str
    start: float
    end: float
    launch: int


@frozen
class Idleness:
    """Microseconds from the first to the last piece of work, of which some were busy.

    ``between`` is the waiting between two launches: a graph's own pauses between its kernels are not among it.
    """

    span: float
    busy: float
    between: float

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Idleness:
        """The idleness of ``spans``, which may overlap."""
        ordered = sorted(spans, key=lambda each: each.start)
        latest, busy, between = ordered[0], 0.0, 0.0
        begin = end = latest.start
        for span in ordered:
            if span.launch != latest.launch:
                between += max(0.0, span.start - end)
            busy += max(0.0, span.end - max(end, span.start))
            if span.end >= end:
                end, latest = span.end, span
        return cls(end - begin, busy, between)


def profiled(work: Callable[[], object]) -> list[Span]:
    """What ``work`` did on the device.

    Raises:
        VeloError: the profiler saw nothing there.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        spans = read_trace(path.read_text(encoding="utf-8"))
    if not spans:
        raise VeloError("the profiler saw no work on the device; is another profiler attached?")
    return spans


def read_trace(text: str) -> list[Span]:
    """The device's work out of a Chrome trace."""
    events = json.loads(text)["traceEvents"]
    return [
        Span(
            str(each["name"]),
            float(each["ts"]),
            float(each["ts"]) + float(each["dur"]),
            int(each.get("args", {}).get("correlation", -number)),
        )
        for number, each in enumerate(events, 1)
        if each.get("cat") in WORK and "dur" in each
    ]


def largest(spans: Sequence[Span], count: int) -> list[tuple[str, float]]:
    """The ``count`` names with the most microseconds in all."""
    totals: dict[str, float] = defaultdict(float)
    for span in spans:
        totals[span.name] += span.end - span.start
    return sorted(totals.items(), key=lambda each: -each[1])[:count]

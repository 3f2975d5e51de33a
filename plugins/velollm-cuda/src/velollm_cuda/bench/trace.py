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
TO_HOST = "DtoH"


@frozen
class Span:
    """One piece of work on the device; microseconds."""

    name: str
    start: float
    end: float


@frozen
class Idleness:
    """Microseconds from the first to the last piece of work, of which some were busy.

    ``between`` is the waiting around the copies of tokens to the host: each step ends with one.
    """

    span: float
    busy: float
    between: float

    @classmethod
    def of(cls, spans: Sequence[Span]) -> Idleness:
        """The idleness of ``spans``, which may overlap."""
        ordered = sorted(spans, key=lambda each: each.start)
        end, busy, between, ends_step = ordered[0].start, 0.0, 0.0, False
        for span in ordered:
            gap = max(0.0, span.start - end)
            is_copy = TO_HOST in span.name
            if is_copy or ends_step:
                between += gap
            busy += max(0.0, span.end - max(end, span.start))
            end, ends_step = max(end, span.end), is_copy
        return cls(end - ordered[0].start, busy, between)


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
        Span(str(each["name"]), float(each["ts"]), float(each["ts"]) + float(each["dur"]))
        for each in events
        if each.get("cat") in WORK and "dur" in each
    ]


def largest(spans: Sequence[Span], count: int) -> list[tuple[str, float]]:
    """The ``count`` names with the most microseconds in all."""
    totals: dict[str, float] = defaultdict(float)
    for span in spans:
        totals[span.name] += span.end - span.start
    return sorted(totals.items(), key=lambda each: -each[1])[:count]

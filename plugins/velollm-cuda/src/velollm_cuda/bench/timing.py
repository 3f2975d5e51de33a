"""Timing on the device: a graph of many launches over many buffers, so that neither host nor cache is measured.

Without a GPU the same calls are timed by the host's clock, which measures nothing but that they run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from velollm_cuda.bench.figure import Figure

REPEATS = 9
WARMUPS = 2


def graph_time(calls: Sequence[Callable[[], object]], repeats: int = REPEATS) -> Figure:
    """Microseconds of one call: all ``calls`` in one graph, replayed ``repeats`` times.

    Give each call buffers of its own, 256 MiB in all: what a call reads must not be in the card's cache.
    """
    if not torch.cuda.is_available():
        return Figure.of([_host_time(call) for call in calls], "µs")
    for call in calls:
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return Figure.of([each / len(calls) for each in event_times(graph.replay, repeats)], "µs")


def event_times(call: Callable[[], object], repeats: int = REPEATS) -> list[float]:
    """Microseconds of ``call`` on the device, ``repeats`` times, after two for warmth."""
    for _ in range(WARMUPS):
        call()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1000)
    return times


def _host_time(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6

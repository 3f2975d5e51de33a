"""What a run is made under, handed past the hook that starts it."""

from __future__ import annotations

import time
from contextvars import ContextVar

from attrs import field, frozen

from velollm_core.backends.status import Status
from velollm_core.benchmark.conditions import Sources
from velollm_core.benchmark.exchange import REQUEST_SECONDS, Clock
from velollm_core.benchmark.gpu_watch import Reader, nvml_reader
from velollm_core.benchmark.listener import Listener, Silent
from velollm_core.benchmark.warmup import WarmUpRule
from velollm_core.hardware.machine import Hardware


@frozen
class Circumstances:
    """``status`` and ``hardware`` go into the record, ``listener`` hears how it goes, ``limit`` bounds each request.

    ``clock`` counts seconds, ``sources`` are where the machine's counters are read.
    """

    status: Status | None = None
    hardware: Hardware | None = None
    listener: Listener = field(factory=Silent)
    rule: WarmUpRule = field(factory=WarmUpRule)
    limit: float = REQUEST_SECONDS
    clock: Clock = field(factory=lambda: time.perf_counter)
    sources: Sources = field(factory=Sources)
    watch_gpus: bool = True

    def gpu_reader(self) -> Reader | None:
        """What looks at the GPUs; None where there are none of NVIDIA's, or nobody wants to look."""
        if not self.watch_gpus or self.hardware is None:
            return None
        return nvml_reader() if any(gpu.vendor == "nvidia" for gpu in self.hardware.gpus) else None


# The hook `benchmark(backend, workload)` has no room for these: whoever calls it sets them here.
CURRENT: ContextVar[Circumstances] = ContextVar("velollm_benchmark_circumstances", default=Circumstances())  # noqa: B039

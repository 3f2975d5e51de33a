"""What the GPUs went through while a block ran: looked at five times a second, beside the measurement."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from attrs import frozen

PERIOD = 0.2
POWER_CAP = 0x04
# NVML's clock event reasons that make a measurement void; the software power cap is how large cards always run.
SLOWDOWNS = {
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@frozen
class Glimpse:
    """One GPU at one moment. Clocks in MHz, temperature in °C; None where the driver does not say."""

    gpu: int
    reasons: int | None
    temperature: int | None
    graphics_clock: int | None
    memory_clock: int | None
    processes: frozenset[int]


@frozen
class GpuRecord:
    """One GPU over a block: ``slowed`` is the share of looks at which each slowdown was on, by its name.

    ``power_capped`` is the share under the software power cap, which is normal. ``processes`` computed on it at the
    first look, the engine among them; ``newcomers`` were not there then.
    """

    gpu: int
    looks: int
    slowed: Mapping[str, float]
    power_capped: float
    hottest: int | None
    graphics_clock: float | None
    memory_clock: float | None
    newcomers: int
    processes: int = 0

    def __str__(self) -> str:
        clocks = {"cores": self.graphics_clock, "memory": self.memory_clock}
        parts = [f"{self.hottest} °C at most"] if self.hottest is not None else []
        parts += [f"{name} at {clock:.0f} MHz" for name, clock in clocks.items() if clock is not None]
        parts += [f"under its power cap {self.power_capped:.0%} of the time"] if self.power_capped else []
        return f"GPU {self.gpu}: {', '.join(parts) or 'the driver says nothing'}"


Reader = Callable[[], Sequence[Glimpse]]


class GpuWatch:
    """Looks at the GPUs from a thread of its own between `start` and `stop`."""

    def __init__(self, reader: Reader, period: float = PERIOD) -> None:
        self._reader = reader
        self._period = period
        self._seen: list[Glimpse] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look, name="velollm-gpu-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> tuple[GpuRecord, ...]:
        """What was seen, by GPU. A driver that hangs is left behind."""
        self._done.set()
        self._thread.join(5 * self._period + 1.0)
        seen = list(self._seen)
        return tuple(summarise_gpu([look for look in seen if look.gpu == gpu]) for gpu in sorted({s.gpu for s in seen}))

    def _look(self) -> None:
        while True:
            self._seen.extend(self._reader())
            if self._done.wait(self._period):
                return


def summarise_gpu(looks: Sequence[Glimpse]) -> GpuRecord:
    """The record of one GPU's looks, at least one."""
    reasons = [look.reasons or 0 for look in looks]
    slowed = {name: sum(bool(each & bit) for each in reasons) / len(looks) for bit, name in SLOWDOWNS.items()}
    return GpuRecord(
        gpu=looks[0].gpu,
        looks=len(looks),
        slowed={name: share for name, share in slowed.items() if share},
        power_capped=sum(bool(each & POWER_CAP) for each in reasons) / len(looks),
        hottest=max((look.temperature for look in looks if look.temperature is not None), default=None),
        graphics_clock=_median([look.graphics_clock for look in looks]),
        memory_clock=_median([look.memory_clock for look in looks]),
        newcomers=len(frozenset().union(*(look.processes for look in looks)) - looks[0].processes),
        processes=len(looks[0].processes),
    )


def nvml_reader() -> Reader | None:
    """A reader over NVML; None where there is no NVIDIA GPU to ask."""
    import pynvml

    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return None
    if not handles:
        return None
    return lambda: [_glimpse(pynvml, index, handle) for index, handle in enumerate(handles)]


def _glimpse(nvml: Any, index: int, handle: object) -> Glimpse:
    old = getattr(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", None)
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", old)
    processes = _answer(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    return Glimpse(
        gpu=index,
        reasons=_answer(nvml, reasons, handle),
        temperature=_answer(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        graphics_clock=_answer(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_SM),
        memory_clock=_answer(nvml, nvml.nvmlDeviceGetClockInfo, handle, nvml.NVML_CLOCK_MEM),
        processes=frozenset(process.pid for process in processes),
    )


def _answer(nvml: Any, call: Callable[..., Any] | None, *arguments: object) -> Any:
    try:
        return call(*arguments) if call else None
    except nvml.NVMLError:
        return None


def _median(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(median(known)) if known else None

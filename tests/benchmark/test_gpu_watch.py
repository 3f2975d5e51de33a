"""What the GPUs went through."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import evolve

from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.gpu_watch import Glimpse, GpuWatch, nvml_reader, summarise_gpu
from velollm_core.benchmark.noise import judge
from velollm_core.hardware.gpu import Gpu
from velollm_core.testing.plugin_contract import some_hardware

CALM = Glimpse(0, 0x04, 60, 1500, 2600, frozenset({7}))
LOOK = Conditions(0.0, 0.0, None, Canary(1.0, 1.0))


def test_record_of_a_calm_gpu() -> None:
    record = summarise_gpu([CALM, evolve(CALM, reasons=0, temperature=64, graphics_clock=1600)])
    assert (record.looks, record.slowed, record.power_capped, record.hottest) == (2, {}, 0.5, 64)
    assert (record.graphics_clock, record.memory_clock, record.newcomers) == (1550, 2600, 0)
    assert judge(LOOK, LOOK, [record]).verdict == "clean"


@pytest.mark.parametrize(
    ("reasons", "name"),
    [
        (0x08, "hardware slowdown"),
        (0x24, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"),
        (0x80, "power brake"),
    ],
)
def test_a_slowed_gpu_makes_the_block_invalid(reasons: int, name: str) -> None:
    noise = judge(LOOK, LOOK, [summarise_gpu([CALM, evolve(CALM, reasons=reasons)])])
    assert (noise.verdict, noise.causes) == ("invalid", (f"GPU 0 was under {name} 50% of the time",))


def test_another_process_is_noise() -> None:
    noise = judge(LOOK, LOOK, [summarise_gpu([CALM, evolve(CALM, processes=frozenset({7, 8, 9}))])])
    assert (noise.verdict, noise.causes) == ("noisy", ("2 other processes came to GPU 0",))


def test_a_driver_that_says_nothing() -> None:
    record = summarise_gpu([Glimpse(1, None, None, None, None, frozenset())])
    assert (record.gpu, record.hottest, record.graphics_clock) == (1, None, None)


def test_the_watch_looks_until_it_is_stopped() -> None:
    watch = GpuWatch(lambda: [CALM, evolve(CALM, gpu=1)], period=0.001)
    watch.start()
    time.sleep(0.02)
    records = watch.stop()
    assert [record.gpu for record in records] == [0, 1]
    assert records[0].looks == records[1].looks >= 1


class FakeNvml(SimpleNamespace):
    """As much of pynvml as the reader asks."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM, NVML_CLOCK_MEM = 0, 1, 2

    def nvmlInit(self) -> None:  # noqa: N802
        if self.absent:
            raise self.NVMLError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        return "handle"

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: str) -> int:  # noqa: N802
        return 4

    def nvmlDeviceGetTemperature(self, handle: str, kind: int) -> int:  # noqa: N802
        raise self.NVMLError

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:  # noqa: N802
        return 1500 if kind == self.NVML_CLOCK_SM else 2600

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=7)]


def test_nvml_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(absent=False))
    reader = nvml_reader()
    assert reader is not None
    assert list(reader()) == [evolve(CALM, temperature=None)]
    hardware = evolve(some_hardware(), gpus=(Gpu(0, "nvidia", "X"),))
    assert Circumstances(hardware=hardware).gpu_reader() is not None
    assert Circumstances(hardware=hardware, watch_gpus=False).gpu_reader() is None


def test_without_nvml_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(absent=True))
    assert nvml_reader() is None
    assert Circumstances(hardware=some_hardware()).gpu_reader() is None
    assert Circumstances().gpu_reader() is None

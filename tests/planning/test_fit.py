"""Whether something fits, to the byte, with its arithmetic."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.figures import Bytes, Interval
from velollm_core.hardware.gpu import Gpu, GpuProcess
from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown
from velollm_core.models.devices import Device, devices
from velollm_core.models.fit import fit, with_overhead
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.scaling import Scaling

ZERO = Bytes(0, "formula")


def part(device: str, weights: int, compute: Bytes = ZERO, overhead: Bytes = ZERO) -> DeviceMemory:
    return DeviceMemory(device, Bytes(weights, "formula"), ZERO, ZERO, compute, ZERO, overhead)


def needs(*parts: DeviceMemory) -> MemoryBreakdown:
    return MemoryBreakdown(parts, 512, 512, 1, 512, 512)


def place(name: str, free: int | None, *, shared: bool = False) -> Device:
    return Device(name, name, free, "free in a test", ZERO, shared=shared)


@settings(max_examples=50, deadline=None)
@given(
    weights=st.integers(0, 1 << 40),
    spread=st.integers(0, 1 << 30),
    slack=st.integers(0, 1 << 30),
    free=st.integers(0, 1 << 40),
)
def test_yes_is_sure_no_is_sure_and_maybe_is_between(weights: int, spread: int, slack: int, free: int) -> None:
    compute = Bytes(spread, "formula", Interval(0, spread + slack))
    found = fit(needs(part("host", weights, compute)), [place("host", free)])
    assert (found.verdict == "yes") == (weights + spread + slack <= free)
    assert (found.verdict == "no") == (weights > free)
    assert found.missing == max(0, weights + spread + slack - free)
    assert found.sure is {"yes": True, "no": False, "maybe": None}[found.verdict]
    assert found.reason == found.devices[0].reason


def test_the_worst_device_decides() -> None:
    memory_ = needs(part("host", 10), part("gpu0", 100))
    found = fit(memory_, [place("host", 1000), place("gpu0", 50)])
    assert found.verdict == "no"
    assert found.reason.startswith("gpu0: ")
    assert "short of a sure fit" in found.reason
    assert found.missing == 50


def test_what_nothing_says_is_unknown() -> None:
    found = fit(needs(part("host", 10), part("gpu0", 100)), [place("host", 1000), place("gpu0", None)])
    assert found.verdict == "unknown"
    assert found.sure is None
    assert found.missing == 0


def test_a_device_that_is_not_there_holds_nothing() -> None:
    assert fit(needs(part("host", 1), part("gpu3", 1)), [place("host", 10)]).verdict == "no"


def test_a_gpu_that_shares_main_memory_counts_there_too() -> None:
    parts = needs(part("host", 600), part("gpu0", 600))
    assert fit(parts, [place("host", 1000), place("gpu0", 1000)]).verdict == "yes"
    found = fit(parts, [place("host", 1000), place("gpu0", 1000, shared=True)])
    assert found.verdict == "no"
    assert "gpu0, which shares it" in found.reason


def test_free_is_what_is_free_now_not_what_the_card_has(machine) -> None:
    hardware = machine("rtx4090")
    busy = evolve(
        hardware.gpus[0], memory_free=3 << 30, processes=(GpuProcess(1, "game", 20 << 30), GpuProcess(2, None, None))
    )
    gpu = devices(evolve(hardware, gpus=(busy,)))[1]
    assert gpu.free == 3 << 30
    assert "2 other processes hold 20.00 GiB" in gpu.reason


def test_hidden_gpus_are_no_devices(machine) -> None:
    hardware = machine("rtx4090")
    hidden = evolve(hardware.gpus[0], visible=False)
    names = [device.name for device in devices(evolve(hardware, gpus=(hidden, hardware.gpus[0])))]
    assert names == ["host", "gpu0"]


def test_container_limits_and_working_sets_bound_what_is_free(machine) -> None:
    apple = machine("m2max")
    host, gpu = devices(apple)
    assert gpu.shared
    assert gpu.free == min(apple.memory.available, apple.gpus[0].memory_total)
    limited = evolve(machine("cpu"), memory=evolve(machine("cpu").memory, limit=4 << 30, available=3 << 30))
    host = devices(limited)[0]
    assert host.free == 3 << 30
    assert "container limit of 4.00 GiB" in host.reason


def test_a_driver_that_says_nothing_leaves_free_unknown(machine) -> None:
    found = devices(evolve(machine("cpu"), gpus=(Gpu(0, "amd", None),)))
    assert found[1].free is None
    assert found[1].title == "amd GPU"
    assert "does not say" in found[1].reason
    shared = devices(evolve(machine("cpu"), gpus=(Gpu(0, "intel", None, unified=True),)))[1]
    assert shared.free == machine("cpu").memory.available


@pytest.mark.parametrize("layers", [0, 20, 33])
def test_overhead_is_stated_for_every_device_in_use(machine, dense, layers: int) -> None:
    found = devices(machine("rtx4090"))
    made = with_overhead(memory(dense(), LoadSettings(4096, gpu_layers=layers)), found)
    for device in made.devices:
        assert device.overhead.basis == "nominal"
        assert 0 < device.overhead.low < device.overhead.high
    measured = evolve(made.devices[0], overhead=Bytes(5, "measured"))
    kept = with_overhead(evolve(made, devices=(measured, *made.devices[1:])), found)
    assert kept.devices[0].overhead == Bytes(5, "measured")


def test_the_allocator_teaches_other_settings(dense) -> None:
    spec = dense()
    formula = memory(spec, LoadSettings(4096))
    host = formula.devices[0]
    engine = evolve(formula, devices=(evolve(host, kv=Bytes(host.kv.value * 2, "allocator")),))
    scaling = Scaling.between(formula, engine)
    assert (scaling.weights, scaling.kv) == (1.0, 2.0)
    other = memory(spec, LoadSettings(8192))
    moved = scaling.apply(other).devices[0]
    assert moved.kv.value == 2 * other.devices[0].kv.value
    assert moved.kv.low < moved.kv.value < moved.kv.high
    assert moved.weights == other.devices[0].weights

"""The machine's counters and the verdict on them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from velollm_core.benchmark import canary
from velollm_core.benchmark.canary import Canary, allowed_threads, sing
from velollm_core.benchmark.conditions import Conditions, Sources, governor, observe
from velollm_core.benchmark.gpu_watch import GpuRecord
from velollm_core.benchmark.noise import Noise, judge, overall

STILL = Conditions(wall=1000.0, awake=50.0, elapsed=60.0, canary=Canary(0.01, 0.02), cpu_waited=5.0, stolen=1.0)


def later(**changes: Any) -> Conditions:
    return evolve(STILL, wall=1010.0, awake=60.0, elapsed=70.0, **changes)


def test_a_quiet_block_is_clean() -> None:
    noise = judge(STILL, later(cpu_waited=5.5, canary=Canary(0.0102, 0.0199)))
    assert noise.verdict == "clean"
    assert noise.causes == ()
    assert noise.canary_drift == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"canary": Canary(0.011, 0.02)}, "the reference work changed its speed by 10.0%"),
        ({"canary": Canary(0.01, 0.018)}, "the reference work changed its speed by 10.0%"),
        ({"cpu_waited": 9.0}, "work waited for a processor 40% of the time"),
        ({"stolen": 2.0}, "the hypervisor gave 10% of a processor to others"),
    ],
)
def test_noise_has_a_cause(changes: dict[str, Any], cause: str) -> None:
    noise = judge(STILL, later(**changes))
    assert (noise.verdict, noise.causes) == ("noisy", (cause,))


def test_heat_and_quota() -> None:
    before = evolve(STILL, overheated=3, throttled=1.0, memory_waited=0.0)
    after = evolve(before, awake=60.0, elapsed=70.0, overheated=5, throttled=3.0, memory_waited=1.0)
    assert judge(before, after).causes == (
        "work waited for memory 10% of the time",
        "the cgroup's quota stopped us 20% of the time",
        "the processor throttled for heat 2 times",
    )


def test_sleep_makes_a_block_invalid() -> None:
    noise = judge(STILL, evolve(later(), elapsed=3670.0))
    assert (noise.verdict, noise.causes) == ("invalid", ("the machine slept for 3600 s",))


def test_a_wall_clock_that_jumps_is_no_noise() -> None:
    assert judge(STILL, evolve(later(), wall=5.0)).verdict == "clean"


def test_unknown_counters_are_no_noise() -> None:
    assert judge(STILL, later(cpu_waited=None, stolen=None)).verdict == "clean"


def test_a_loaded_machine_is_noisy_where_no_counter_says_better() -> None:
    busy = evolve(STILL, cpu_waited=None, load_average=allowed_threads() + 0.6)
    (cause,) = judge(busy, later(cpu_waited=None)).causes
    assert cause.endswith(f"{allowed_threads()} processors when it began")
    assert judge(evolve(busy, load_average=0.3), later(cpu_waited=None)).verdict == "clean"
    assert judge(evolve(busy, cpu_waited=5.0), later()).verdict == "clean"


def test_a_gpu_that_is_shared_is_noisy() -> None:
    alone = GpuRecord(0, 9, {}, 0.5, 71, 1980.0, 2619.0, 0, processes=1)
    assert judge(STILL, later(), [alone]).verdict == "clean"
    assert judge(STILL, later(), [evolve(alone, processes=2)]).causes == ("2 processes share GPU 0",)
    told = "GPU 0: 71 °C at most, cores at 1980 MHz, memory at 2619 MHz, under its power cap 50% of the time"
    assert str(alone) == told
    assert str(GpuRecord(1, 1, {}, 0.0, None, None, None, 0)) == "GPU 1: the driver says nothing"


def test_several_blocks_are_as_bad_as_the_worst() -> None:
    blocks = [Noise("clean", (), 0.01), Noise("noisy", ("drift 5.5%",), 0.05), Noise("noisy", ("drift 12%",), 0.12)]
    assert overall(blocks) == Noise("noisy", ("drift 12% at most (in 2 of 3 blocks)",), 0.12)
    assert overall([]) == Noise("clean", (), None)


@pytest.fixture
def machine(tmp_path: Path) -> Sources:
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/pressure/cpu").write_text("some avg10=3.41 avg60=5.05 avg300=29.32 total=445224230\nfull x\n")
    (tmp_path / "proc/pressure/memory").write_text("some avg10=0 total=rubbish\n")
    (tmp_path / "proc/loadavg").write_text("1.25 0.9 0.5 2/345 6789\n")
    (tmp_path / "proc/stat").write_text("cpu  1 2 3 4 5 6 7 800 9 10\ncpu0 1\n")
    (tmp_path / "proc/self/cgroup").write_text("9:name=systemd:/\n0::/box\n")
    (tmp_path / "sys/fs/cgroup/box").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/box/cpu.stat").write_text("usage_usec 9\nnr_throttled 4\nthrottled_usec 2500000\n")
    cpu = tmp_path / "sys/devices/system/cpu/cpu0"
    (cpu / "thermal_throttle").mkdir(parents=True)
    (cpu / "thermal_throttle/core_throttle_count").write_text("3\n")
    (cpu / "thermal_throttle/package_throttle_count").write_text("4\n")
    (cpu / "cpufreq").mkdir()
    (cpu / "cpufreq/scaling_governor").write_text("powersave\n")
    return Sources(tmp_path / "proc", tmp_path / "sys", lambda: Canary(1.0, 2.0))


def test_counters_are_read(machine: Sources) -> None:
    for closing in (False, True):
        seen = observe(closing=closing, sources=machine)
        assert seen.cpu_waited == pytest.approx(445.22423)
        assert seen.memory_waited is None
        assert seen.disk_waited is None
        assert seen.load_average == pytest.approx(1.25)
        assert seen.stolen == pytest.approx(8.0)
        assert seen.throttled == pytest.approx(2.5)
        assert seen.overheated == 7
        assert seen.canary == Canary(1.0, 2.0)
    assert governor(machine) == "powersave"


def test_a_machine_that_says_nothing(quiet: Sources) -> None:
    seen = observe(sources=quiet)
    assert (seen.cpu_waited, seen.stolen, seen.throttled, seen.overheated) == (None, None, None, None)
    assert governor(quiet) is None


def test_the_real_machine_and_canary_answer() -> None:
    seen = observe()
    assert seen.canary.compute > 0
    assert seen.canary.memory > 0
    assert allowed_threads() >= 1
    assert sing(threads=1).compute > 0


def test_the_canary_copies_the_same_written_memory_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, ...]] = []
    kept = canary._memory

    def watched() -> tuple[bytes, memoryview, bytearray]:
        data, source, target = kept()
        # A page that was never written to is the one page of zeros, whose copy tells of no memory at all.
        assert all(any(part[place : place + 4096]) for part in (source, target) for place in range(0, len(part), 4096))
        seen.append((id(data), id(source), id(target)))
        return data, source, target

    monkeypatch.setattr(canary, "_memory", watched)
    sing(threads=1)
    sing(threads=1)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("size", "mib"), [("98304K\n", 96), ("8192K\n", 32), ("1048576K\n", 128), ("much\n", 32), (None, 32)]
)
def test_the_canary_copies_more_than_the_last_cache_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, size: str | None, mib: int
) -> None:
    told = tmp_path / "size"
    if size is not None:
        told.write_text(size)
    monkeypatch.setattr(canary, "LAST_CACHE", str(told))
    assert canary._copied() == mib << 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="threads cannot be told where to run here")
def test_each_of_the_canarys_threads_has_a_processor_of_its_own() -> None:
    allowed = os.sched_getaffinity(0)
    free = iter(canary._processors())
    found: list[set[int]] = []

    def settle() -> None:
        canary._settle(free)
        found.append(os.sched_getaffinity(threading.get_native_id()))

    for _ in range(len(allowed) + 1):
        thread = threading.Thread(target=settle)
        thread.start()
        thread.join()
    assert found == [*({each} for each in sorted(allowed)), allowed]
    assert os.sched_getaffinity(0) == allowed

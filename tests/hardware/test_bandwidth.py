"""The probe of memory bandwidth: its arithmetic on made-up times, and one short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.config import cache_dir
from velollm_core.hardware import bandwidth
from velollm_core.hardware.bandwidth import ReadTime, bandwidth_rate, measure_bandwidth, windows
from velollm_core.hardware.bandwidth_cache import calmness, kept_samples, machine_key
from velollm_core.hardware.cpu import Cpu

MIB = 2**20


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def steady(seconds: float, chunk_seconds: float, start: float = 0.0) -> list[ReadTime]:
    count = round(seconds / chunk_seconds)
    return [ReadTime(start + n * chunk_seconds, start + (n + 1) * chunk_seconds, MIB) for n in range(count)]


def test_two_threads_at_a_steady_pace() -> None:
    calm, disturbed = windows([steady(0.1, 0.0001), steady(0.1, 0.0001)])
    assert len(calm) >= 48
    assert disturbed == []
    assert calm == pytest.approx([2 * MIB / 0.0001] * len(calm), rel=1e-6)


def test_a_thread_that_was_interrupted_spoils_its_windows_only() -> None:
    first, second = steady(0.1, 0.0001), steady(0.05, 0.0001)
    second += [ReadTime(0.05, 0.06, MIB), *steady(0.04, 0.0001, 0.06)]
    calm, disturbed = windows([first, second])
    assert 4 <= len(disturbed) <= 7
    assert min(calm) == pytest.approx(2 * MIB / 0.0001, rel=1e-6)


def test_the_value_is_the_median_of_calm_windows() -> None:
    rate = bandwidth_rate({"undisturbed": [20e9, 22e9, 21e9, 30e9, 19e9], "disturbed": [1e9, 40e9]})
    assert rate is not None
    assert (rate.value, rate.basis) == (21e9, "measured")
    assert rate.interval is not None
    assert (rate.interval.low, rate.interval.high) == (19e9, 30e9)


def test_on_a_busy_machine_it_is_the_best_window() -> None:
    rate = bandwidth_rate({"undisturbed": [9e9], "disturbed": [1e9, 12e9, 8e9]})
    assert rate is not None
    assert rate.value == 12e9


def test_a_quota_takes_its_share() -> None:
    rate = bandwidth_rate({"undisturbed": [20e9] * 5, "disturbed": []}, 0.75)
    assert rate is not None
    assert rate.value == 15e9


@pytest.mark.parametrize("samples", [None, {}, {"undisturbed": []}, {"undisturbed": ["x", -1, 0]}, [1, 2], "text"])
def test_no_samples_no_rate(samples: object) -> None:
    assert bandwidth_rate(samples) is None


@given(st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.01)), max_size=30), max_size=4))
def test_windows_of_any_times(pairs: list[list[tuple[float, float]]]) -> None:
    times = []
    for thread in pairs:
        clock, found = 0.0, []
        for pause, took in thread:
            found.append(ReadTime(clock + pause, clock + pause + took, MIB))
            clock += pause + took
        times.append(found)
    calm, disturbed = windows(times)
    assert all(rate >= 0 for rate in calm + disturbed)


def test_a_real_run_reads_what_it_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "READ_SECONDS", 0.05)
    monkeypatch.setattr(bandwidth, "FILL_SECONDS", 0.05)
    samples = measure_bandwidth([None, None], 2**33, 32 * MIB)
    assert samples is not None
    assert samples["threads"] == 2
    assert 0 < samples["bytes"] <= 64 * MIB
    rate = bandwidth_rate(samples)
    assert rate is not None
    assert rate.interval is not None
    assert 0 < rate.interval.low <= rate.value <= rate.interval.high


def test_too_little_memory_is_left_alone() -> None:
    assert measure_bandwidth([None], 256 * MIB) is None
    assert measure_bandwidth([], 2**33) is None


CALM = {"undisturbed": [1e9] * 9, "disturbed": [1e9]}
BUSY = {"undisturbed": [1e9], "disturbed": [1e9] * 9}


def test_a_calm_measurement_is_kept() -> None:
    first = kept_samples("key", lambda: CALM, now=lambda: 0.0)
    assert kept_samples("key", lambda: pytest.fail("measured again"), now=lambda: 1e9) == first


def test_a_busy_one_is_improved_after_ten_minutes() -> None:
    kept_samples("key", lambda: BUSY, now=lambda: 0.0)
    assert calmness(kept_samples("key", lambda: CALM, now=lambda: 60.0)) == 0.1
    assert calmness(kept_samples("key", lambda: CALM, now=lambda: 601.0)) == 0.9
    assert calmness(kept_samples("key", lambda: BUSY, now=lambda: 1e6)) == 0.9


def test_a_worse_one_does_not_replace_it() -> None:
    kept_samples("key", lambda: {"undisturbed": [1.0] * 5, "disturbed": [1.0] * 5}, now=lambda: 0.0)
    assert calmness(kept_samples("key", lambda: BUSY, now=lambda: 601.0)) == 0.5
    assert calmness(kept_samples("key", lambda: None, now=lambda: 2000.0)) == 0.5


@pytest.mark.parametrize("text", ["", "rubbish", "[]", '{"key": 3}', '{"key": {"taken_at": "x"}}'])
def test_a_broken_cache_is_measured_over(text: str) -> None:
    cache_dir().mkdir(parents=True)
    (cache_dir() / "bandwidth.json").write_text(text)
    assert calmness(kept_samples("key", lambda: CALM, now=lambda: 1e9)) == 0.9
    assert "key" in json.loads((cache_dir() / "bandwidth.json").read_text())


def test_a_cache_that_cannot_be_written_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert calmness(kept_samples("key", lambda: CALM)) == 0.9


def test_another_cpuset_is_another_machine() -> None:
    cpu = Cpu("X", None, "x86_64", 8, 16, 16, 8, None, None, None, None, None, ())
    assert machine_key(cpu, "16 8") != machine_key(cpu, "4 2")
    assert machine_key(cpu, "16 8") == machine_key(cpu, "16 8")

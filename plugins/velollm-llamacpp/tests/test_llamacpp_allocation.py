"""The child's answer becomes a breakdown: exact where the sums hold, rounded where only the log speaks."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.allocation import FROM_LOG, UNSPLIT, breakdown, device_sums, explicit, read_log

from velollm_core.models.load import LoadSettings

HYBRID = (
    "llama_kv_cache:        CPU KV buffer size =     0.00 MiB",
    "llama_kv_cache: size =    0.19 MiB (   512 cells,   3 layers,  1/1 seqs), K (f16):    0.09 MiB, V (f16): 0.09 MiB",
    "llama_memory_recurrent:        CPU RS buffer size =     0.02 MiB",
    "llama_memory_recurrent: size =    0.02 MiB (     1 cells,   3 layers,  1 seqs  0 rs_seq), R (f32):    0.00 MiB",
    "sched_reserve:        CPU compute buffer size =     2.40 MiB",
)


def answer(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "context": 512,
        "context_per_sequence": 512,
        "batch": 512,
        "ubatch": 512,
        "vocabulary": 320,
        "buffers": [["CPU", True, 400032, 219648, 2516544]],
        "probes": [[["CPU", True, 400032, 219648, 0]], [["CPU", True, 400032, 416256, 0]]],
        "log": HYBRID,
    }
    return found | changes


def test_two_probes_tell_cache_and_state_apart_to_the_byte() -> None:
    memory = breakdown(answer(), 1, 399852)
    host = memory.devices[0]
    assert (host.kv.value, host.recurrent.value) == (196608, 23040)
    assert (host.weights.value, host.compute.value, host.output.value) == (400032, 2516544, 1280)
    assert all(part.interval is None for part in host.components.values())
    assert (memory.sequences, memory.context, memory.notes) == (1, 512, ())


@pytest.mark.parametrize("probes", [[], [None, None], [[["CPU", True, 0, 1, 0]], [["CPU", True, 0, 2, 0]]]])
def test_without_sound_probes_both_stand_under_kv(probes: list[object]) -> None:
    memory = breakdown(answer(probes=probes), 1, 0)
    assert memory.devices[0].kv.value == 219648
    assert memory.notes == (UNSPLIT,)


@pytest.mark.parametrize("buffers", [None, [["CPU", True, 400032, 999999999, 2516544]]])
def test_sums_that_the_log_contradicts_give_way_to_the_log(buffers: object) -> None:
    memory = breakdown(answer(buffers=buffers), 1, 399852)
    host = memory.devices[0]
    assert host.kv.low <= 196608 <= host.kv.high
    assert host.recurrent.low <= 23040 <= host.recurrent.high
    assert host.compute.low <= 2516544 <= host.compute.high
    assert (host.weights.value, host.weights.basis) == (399852, "formula")
    assert memory.notes == (FROM_LOG,)


def test_pure_recurrence_has_no_cache() -> None:
    memory = breakdown(answer(log=HYBRID[2:], buffers=[["CPU", True, 1, 20000, 5]]), 1, 1)
    assert (memory.devices[0].kv.value, memory.devices[0].recurrent.value) == (0, 20000)


def test_every_kind_of_host_memory_is_the_host() -> None:
    sums = device_sums([["CUDA1", False, 1, 2, 3], ["CPU", True, 4, 5, 6], ["CUDA_Host", True, 7, 8, 9]])
    assert [(each.device, each.model, each.cache, each.compute) for each in sums] == [
        ("host", 11, 13, 15),
        ("gpu1", 1, 2, 3),
    ]


def test_what_is_left_to_the_server_is_filled_in_as_it_does() -> None:
    load = LoadSettings(total_context=4096)
    assert explicit(evolve(load, parallel=None)) == evolve(load, parallel=4, kv_unified=True)
    assert explicit(evolve(load, parallel=3)).kv_unified is False


@given(st.lists(st.text(max_size=60), max_size=10))
def test_any_log_is_read(lines: list[str]) -> None:
    read_log(lines)


@given(st.integers(0, 2**34))
def test_a_logged_figure_holds_the_true_one(size: int) -> None:
    lines = [f"llama_kv_cache: size = {size / 2**20:7.2f} MiB (512 cells, 1 layers, 1/1 seqs), K (f16): 0.00 MiB"]
    memory = breakdown(answer(log=lines, buffers=None), 1, 0)
    assert memory.devices[0].kv.low <= size <= memory.devices[0].kv.high

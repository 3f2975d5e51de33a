"""Predictions against public runs, and the laws that any roofline obeys."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.figures import Bytes, Rate
from velollm_core.hardware.gpu import Gpu, Vendor
from velollm_core.hardware.machine import Hardware
from velollm_core.models.devices import Device, devices
from velollm_core.models.load import LoadSettings
from velollm_core.models.peak import cpu_peak, gpu_peak
from velollm_core.models.placement import place
from velollm_core.models.roofline import basis, decode_rate, predict, prefill_rate, turn_seconds
from velollm_core.models.span import Span
from velollm_core.models.spec import LayerSpec, ModelSpec

# llama.cpp, Llama 2 7B Q4_0, one card each, late 2024: GB/s, prompt of 512 and 128 tokens of answer in tokens/s.
PUBLIC = [
    ("RTX 3050", "nvidia", "8.6", 18, 168, 1251, 37.8),
    ("RTX 3090", "nvidia", "8.6", 82, 936, 6073, 167),
    ("RTX 4090", "nvidia", "8.9", 128, 1008, 13944, 188),
    ("RX 7900 XTX", "amd", None, 96, 960, None, 103),
    ("Radeon PRO W7900", "amd", None, 96, 864, None, 96),
    ("Radeon 780M", "amd", None, 12, 90, None, 18.6),
    ("Arc 140V", "intel", None, 8, 137, None, 23),
    ("Apple M2", "apple", None, 10, 100, 185, 21.7),
    ("Apple M3 Pro", "apple", None, 18, 150, 342, 30.7),
    ("Apple M3 Max", "apple", None, 40, 400, 760, 66),
    ("Tesla P40", "nvidia", "6.1", 30, 346, None, 56.5),
]
OVERHEAD = Bytes(0, "nominal")


def llama_2_7b() -> ModelSpec:
    table = 32000 * 4096 * 18 // 32
    layers = tuple(
        LayerSpec(
            index,
            heads=32,
            kv_heads=32,
            key_length=128,
            value_length=128,
            dense_bytes=(3_825_000_000 - 2 * table) // 32,
        )
        for index in range(32)
    )
    return ModelSpec(
        "Llama 2 7B",
        "llama",
        "llama-2-7b.gguf",
        "gguf",
        4096,
        4096,
        32000,
        layers,
        embedding_bytes=table,
        output_bytes=table,
        parameters=6_738_000_000,
    )


def card(machine: Hardware, name: str, vendor: Vendor, capability: str | None, cores: int, speed: float) -> Hardware:
    gpu = Gpu(
        0,
        vendor,
        name,
        compute_capability=capability,
        multiprocessors=cores,
        memory_total=64 << 30,
        memory_free=60 << 30,
        unified=name in ("Radeon 780M", "Arc 140V") or vendor == "apple",
        bandwidth=Rate(speed * 1e9, "nominal"),
    )
    return evolve(machine, gpus=(gpu,))


def within(rate: Rate | None, measured: float) -> bool:
    return rate is not None and rate.interval is not None and rate.interval.low <= measured <= rate.interval.high


@pytest.mark.parametrize(("name", "vendor", "capability", "cores", "speed", "prefill", "decode"), PUBLIC)
def test_public_runs_lie_within_the_interval(machine, name, vendor, capability, cores, speed, prefill, decode) -> None:
    found = devices(card(machine("cpu"), name, vendor, capability, cores, speed))
    spec, load = llama_2_7b(), LoadSettings(4096, gpu_layers=99)
    placement = place(spec, load)
    assert within(decode_rate(spec, load, placement, found, 64), decode)
    if prefill:
        assert within(prefill_rate(spec, load, placement, found, 512), prefill)


def test_a_server_processor_lies_within_the_interval(machine) -> None:
    # EPYC 9274F: 461 GB/s by data sheet, 39 and 185 tokens/s.
    hardware = machine("cpu")
    spec, load = llama_2_7b(), LoadSettings(4096)
    prediction = predict(spec, load, place(spec, load), devices(hardware), 64)
    assert within(prediction.decode, 39)
    assert within(prediction.prefill, 185)


def test_one_stream_on_an_h100_lies_within_the_interval(machine, dense) -> None:
    # vLLM, Llama 3.1 8B in 16 bit, one request: 150 tokens/s.
    spec, load = dense(), LoadSettings(4096, gpu_layers=33)
    assert within(decode_rate(spec, load, place(spec, load), devices(machine("h100")), 512), 150)


def test_unknown_bandwidth_is_no_prediction(machine, dense) -> None:
    hardware = machine("cpu")
    found = devices(evolve(hardware, cpu=evolve(hardware.cpu, bandwidth=None)))
    spec, load = dense(), LoadSettings(4096)
    prediction = predict(spec, load, place(spec, load), found, 512)
    assert (prediction.decode, prediction.prefill) == (None, None)
    assert "unknown" in basis(place(spec, load), found)[0]


def test_unknown_arithmetic_leaves_decode_alone(machine, dense) -> None:
    hardware = machine("cpu")
    found = devices(evolve(hardware, cpu=evolve(hardware.cpu, frequency_hz=None, max_frequency_hz=None)))
    spec, load = dense(), LoadSettings(4096)
    prediction = predict(spec, load, place(spec, load), found, 512)
    assert prediction.decode is not None
    assert prediction.prefill is None


def value(rate: Rate | None) -> float:
    assert rate is not None
    return rate.value


@settings(max_examples=25, deadline=None)
@given(depth=st.integers(0, 100_000), more=st.integers(1, 30_000), layers=st.integers(0, 33))
def test_a_deeper_cache_is_never_faster(depth: int, more: int, layers: int) -> None:
    spec, found, load = SPEC, CARD, LoadSettings(131072, gpu_layers=layers)
    placement = place(spec, load)
    near, far = (decode_rate(spec, load, placement, found, each) for each in (depth, depth + more))
    assert value(near) >= value(far)


@settings(max_examples=25, deadline=None)
@given(layers=st.integers(0, 32), sequences=st.integers(1, 64))
def test_more_layers_on_the_gpu_and_more_sequences_are_never_slower_together(layers: int, sequences: int) -> None:
    spec, found = SPEC, CARD
    rates = []
    for count in (layers, layers + 1):
        load = LoadSettings(4096, gpu_layers=count)
        rates.append(value(decode_rate(spec, load, place(spec, load), found, 1024, sequences)))
    # A first layer on the GPU costs the step of a second device.
    assert rates[1] * 1.02 >= rates[0]
    load = LoadSettings(4096, gpu_layers=layers)
    alone = value(decode_rate(spec, load, place(spec, load), found, 1024))
    assert rates[0] * sequences >= alone * 0.999


def test_windows_end_what_depth_costs(machine, dense) -> None:
    found, load = devices(machine("h100")), LoadSettings(131072, gpu_layers=33)
    full, windowed = dense(), dense(window=1024)
    placement = place(full, load)
    assert value(decode_rate(windowed, load, placement, found, 100_000)) > value(
        decode_rate(full, load, placement, found, 100_000)
    )
    kept = evolve(load, swa_full=True)
    assert decode_rate(windowed, kept, placement, found, 100_000) == decode_rate(full, load, placement, found, 100_000)


def test_a_quantized_cache_is_read_faster_but_costs_a_processor_prefill(machine, dense) -> None:
    found, spec, load = devices(machine("cpu")), dense(), LoadSettings(65536)
    quantized = evolve(load, type_k="q8_0", type_v="q8_0")
    placement = place(spec, load)
    assert value(decode_rate(spec, quantized, placement, found, 60_000)) > value(
        decode_rate(spec, load, placement, found, 60_000)
    )
    assert value(prefill_rate(spec, quantized, placement, found, 4096)) < value(
        prefill_rate(spec, load, placement, found, 4096)
    )


def test_experts_in_main_memory_slow_decode_and_larger_chunks_help_prefill(machine, mixture) -> None:
    found, spec = devices(machine("rtx4090")), mixture()
    on_gpu = LoadSettings(8192, gpu_layers=25)
    kept = evolve(on_gpu, cpu_moe_layers=24)
    rates = [value(decode_rate(spec, load, place(spec, load), found, 1024)) for load in (on_gpu, kept)]
    assert rates[0] > rates[1]
    small, large = (evolve(kept, ubatch=size) for size in (256, 2048))
    assert value(prefill_rate(spec, large, place(spec, large), found, 4096)) > value(
        prefill_rate(spec, small, place(spec, small), found, 4096)
    )


def test_a_turn_is_prompt_and_answer() -> None:
    assert turn_seconds(Rate(100, "predicted"), Rate(10, "predicted"), 1000, 50) == Span.exact(15.0)
    assert turn_seconds(None, Rate(10, "predicted"), 1000, 50) is None


@pytest.mark.parametrize(
    ("capability", "multiprocessors", "teraflops"), [("8.6", 82, 71), ("8.9", 128, 165), ("9.0", 132, 989)]
)
def test_peaks_hold_the_data_sheets(capability: str, multiprocessors: int, teraflops: float) -> None:
    peak = gpu_peak(Gpu(0, "nvidia", "card", compute_capability=capability, multiprocessors=multiprocessors))
    assert peak is not None
    assert peak.interval is not None
    assert peak.interval.low <= teraflops * 1e12 <= peak.interval.high


def test_peaks_are_unknown_without_the_figures_behind_them(machine) -> None:
    assert gpu_peak(Gpu(0, "amd", "card", multiprocessors=96)) is None
    assert gpu_peak(Gpu(0, "nvidia", "card", compute_capability="9.0")) is None
    assert gpu_peak(Gpu(0, "nvidia", "card", compute_capability="99.0", multiprocessors=1)) is None
    assert cpu_peak(evolve(machine("cpu").cpu, instruction_sets=())) is None


def test_spans_keep_their_order() -> None:
    one, other = Span(2, 1, 4), Span(3, 2, 5)
    for made in (one + other, one * other, 10 / one, one.at_least(other), one.at_most(other)):
        assert made.low <= made.value <= made.high
    assert Span.of(Rate(5, "measured")) == Span.exact(5)


def _card() -> tuple[Device, ...]:
    gpu = Gpu(0, "nvidia", "card", compute_capability="8.9", multiprocessors=128, memory_free=24 << 30)
    host = Device("host", "cpu", 64 << 30, "", OVERHEAD, Rate(60e9, "measured"), Rate(2e12, "nominal"))
    return (host, Device("gpu0", "card", 24 << 30, "", OVERHEAD, Rate(1e12, "nominal"), gpu_peak(gpu), gpu=gpu))


SPEC = llama_2_7b()
CARD = _card()


def medium_test_model() -> ModelSpec:
    """VeloLLM's own 204 MiB model: 12 layers of width 1024, Q8_0."""
    weights = 1024 * 1024 * 2 + 1024 * 256 * 2 + 3 * 1024 * 2816
    layers = tuple(
        LayerSpec(index, heads=16, kv_heads=4, key_length=64, value_length=64, dense_bytes=weights * 34 // 32)
        for index in range(12)
    )
    table = 32000 * 1024 * 34 // 32
    return ModelSpec(
        "medium",
        "llama",
        "medium.gguf",
        "gguf",
        8192,
        1024,
        32000,
        layers,
        embedding_bytes=table,
        output_bytes=table,
        parameters=2 * 32000 * 1024 + 12 * weights,
    )


@pytest.mark.parametrize(("depth", "prefill", "decode"), [(0, None, 72.8), (2000, 388, 47.8)])
def test_two_idle_cores_lie_within_the_interval(machine, depth: int, prefill: float | None, decode: float) -> None:
    # llama.cpp embedded, two threads of a 2.3 GHz server processor whose memory was measured at 27 GB/s.
    hardware = machine("cpu")
    cpu = evolve(
        hardware.cpu,
        physical_cores=2,
        allowed_cores=2,
        allowed_threads=2,
        frequency_hz=2_300_000_000,
        max_frequency_hz=None,
        bandwidth=Rate(27e9, "measured"),
    )
    spec, load = medium_test_model(), LoadSettings(4096)
    prediction = predict(spec, load, place(spec, load), devices(evolve(hardware, cpu=cpu)), depth)
    assert within(prediction.decode, decode)
    assert prefill is None or within(prediction.prefill, prefill)

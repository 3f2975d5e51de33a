"""The bench measures what it says: lists and floors as published, formulas by hand, every part run once in small."""

from __future__ import annotations

import json
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

import pytest
import torch
from velollm_cuda.bench import (
    client,
    decode,
    end_to_end,
    host,
    models,
    online,
    paged,
    prefill,
    shapes,
    start,
    steady,
    workloads,
)
from velollm_cuda.bench.__main__ import main
from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.names import ANYWHERE, PARTS
from velollm_cuda.bench.report import Machine, PartReport
from velollm_cuda.bench.server import measured_server
from velollm_cuda.bench.shapes import DECODE, DecodeShape, HybridShape, PrefillShape
from velollm_cuda.bench.trace import Idleness, Span, largest, read_trace
from velollm_cuda.bench.workloads import CardRates, ModelShape, PromptOfLength

from velollm_core.errors import VeloError

CPU = torch.device("cpu")
CARD = CardRates(3029e9, 802e12)
TINY = ModelShape(2, 32, 64, 4, 2, 8, 320, tied=True)


@pytest.mark.parametrize(
    ("model", "prompts", "outputs", "digest"),
    [
        ("1b", 146_742, 81_598, "0a450a87030f8c5f"),
        ("8b", 146_742, 81_598, "0a450a87030f8c5f"),
        ("0.6b", 142_827, 133_966, "d72f19b572464c05"),
    ],
)
def test_the_lists_are_those_that_others_were_measured_with(
    model: str, prompts: int, outputs: int, digest: str
) -> None:
    listed = workloads.requests(model)
    assert len(listed) == 256
    assert sum(len(each.token_ids) for each in listed) == prompts
    assert sum(each.output for each in listed) == outputs
    text = json.dumps([(each.token_ids, each.output) for each in listed])
    assert sha256(text.encode()).hexdigest().startswith(digest)


@pytest.mark.parametrize(
    ("model", "count", "floor"),
    [
        *(("1b", count, floor) for count, floor in ((256, 56.8e3), (64, 32.5e3), (16, 12.1e3), (1, 1200))),
        *(("8b", count, floor) for count, floor in ((256, 10.5e3), (64, 5.7e3), (16, 2.04e3), (1, 198))),
        ("0.6b", 256, 26.0e3),
    ],
)
def test_floors_are_the_published_ones(model: str, count: int, floor: float) -> None:
    assert workloads.floor(model, count, CARD).tokens_per_second == pytest.approx(floor, rel=0.01)


def test_a_floor_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workloads.MODELS, "tiny", TINY)
    monkeypatch.setattr(workloads, "requests", lambda _: [PromptOfLength([1, 2, 3], 3)])
    weights, head = 2 * (32 * 8 * 12 + 3 * 32 * 64), 320 * 32
    operations = 2 * weights * 3 + 2 * head + 2 * 2 * 4 * 8 * 9
    read = 2 * 2 * (weights + head) + (4 + 5) * 2 * 2 * 2 * 8 * 2
    found = workloads.floor("tiny", 1, CardRates(1e9, 1e9))
    assert found.seconds == pytest.approx(operations / 1e9 + read / 1e9)
    assert found.tokens_per_second == pytest.approx(3 / found.seconds)


def test_the_shapes_are_the_published_ones() -> None:
    assert [shape.name for shape in DECODE] == [
        "8B 1×1k", "8B 1×16k", "8B 1×128k", "8B 8×2k", "8B 8×16k", "8B 64×1k", "8B 64×4k", "8B 64×8k", "8B 256×1k",
        "8B 256×2k", "8B 64 mixed", "1B 1×4k", "1B 64×2k", "1B 256×1k", "MHA 64×2k", "Qwen3 64×4k", "0.6B 64×2k",
    ]  # fmt: skip
    assert sum(shape.gb_s == shapes.SATURATED_GB_S for shape in DECODE) == 6
    assert sum(workloads.mixed_lengths()) == 178_921
    by_name = {shape.name: shape for shape in DECODE}
    # 489 GB/s in 8.6 µs, 2967 GB/s in 361.9 µs: as published.
    assert by_name["8B 1×1k"].bytes / 8.6e-6 / 1e9 == pytest.approx(489, rel=0.01)
    assert by_name["8B 64×4k"].bytes / 361.9e-6 / 1e9 == pytest.approx(2967, rel=0.01)
    assert by_name["MHA 64×2k"].bytes / 705e-6 / 1e9 == pytest.approx(3046, rel=0.01)
    rates = {"8B 1×8k": (960, 573), "8B 4×(512 + 8k)": (454, 624), "1B 8×2k": (351, 392), "8B 16×256": (56, 154)}
    named = {shape.name: shape for shape in shapes.PREFILL}
    for name, (micros, tflop_s) in rates.items():
        assert named[name].operations / micros / 1e6 == pytest.approx(tflop_s, rel=0.02)


def test_pages_are_shuffled_and_nobodys_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "COLD_BYTES", 100_000)
    cache = paged.PagedCache.of([33, 1, 16], shapes.HEADS["1B"], CPU)
    one = 50 * 8 * 64 * 4
    assert len(cache.tables) * one >= 100_000
    used = torch.cat([table.flatten() for table in cache.tables])
    used = used[used > 0].tolist()
    assert sorted(used) == list(range(1, len(cache.key)))
    assert used != sorted(used)
    assert [int((table > 0).sum()) for table in cache.tables] == [5] * len(cache.tables)


def test_figures() -> None:
    figure = Figure.of([3, 1, 2], "µs")
    assert (figure.value, figure.low, figure.high) == (2, 1, 3)
    falling = figure.mapped(lambda micros: 6 / micros, "GB/s")
    assert (falling.value, falling.low, falling.high) == (3, 2, 6)
    assert str(figure) == "2 (1–3) µs"
    assert str(Figure.of([12345.6], "tok/s")) == "12,346 tok/s"


@pytest.mark.parametrize(
    ("bar", "text"),
    [
        (Bar.at_least("x", Figure.of([3], "GB/s"), 2, judged=True), "reached: x: 3 GB/s (≥ 2)"),
        (Bar.at_least("x", Figure.of([1], "GB/s"), 2, judged=True, aim=4), "MISSED: x: 1 GB/s (≥ 2, aim 4)"),
        (Bar.no_more("x", Figure.of([1], "µs"), 2, judged=True), "reached: x: 1 µs (≤ 2)"),
        (Bar.no_more("x", Figure.of([3], "µs"), 2, judged=True), "MISSED: x: 3 µs (≤ 2)"),
        (Bar.no_more("x", Figure.of([3], "µs"), 2, judged=False), "no verdict: another card: x: 3 µs (≤ 2)"),
    ],
)
def test_bars(bar: Bar, text: str) -> None:
    assert str(bar) == text


def test_only_the_card_of_the_bars_is_judged() -> None:
    def machine(card: str | None) -> Machine:
        return Machine(card, None, "2.6", None, "3.11")

    assert machine("NVIDIA H100 80GB HBM3").judged
    assert not machine("NVIDIA H200").judged
    assert not machine(None).judged


def test_a_report_for_people_and_for_programs() -> None:
    figure = Figure.of([1.0, 2.0, 3.0], "µs")
    machine = Machine("NVIDIA H100", "580.1", "2.11", "3.6", "3.11")
    bars = (Bar.no_more("b", figure, 5, judged=True),)
    report = PartReport("kernels", machine, {"copy": figure}, (Measurement("a", {"time": figure}, "why"),), bars, 61.4)
    document = json.loads(report.json)
    assert document["schema"] == "velollm.cuda.bench/1"
    assert document["measurements"][0]["figures"]["time"] == {"value": 2.0, "unit": "µs", "low": 1.0, "high": 3.0}
    assert document["bars"][0]["reached"] is True
    assert report.text.splitlines() == [
        "kernels on NVIDIA H100, driver 580.1, torch 2.11, triton 3.6, python 3.11",
        "  copy: 2 (1–3) µs",
        "  a: time 2 (1–3) µs [why]",
        "  reached: b: 2 µs (≤ 5)",
        "kernels: 61 s",
    ]


def test_idleness() -> None:
    spans = [
        Span("attention", 0, 10, 7),
        Span("attention", 11, 20, 7),
        Span("beside it", 12, 15, 7),
        Span("Memcpy DtoH (Device -> Pinned)", 21, 22, 8),
        Span("attention", 27, 30, 9),
        Span("attention", 32, 33, 9),
    ]
    idle = Idleness.of(spans)
    assert (idle.span, idle.busy, idle.between) == (33, 24, 6)
    assert largest(spans, 1) == [("attention", 23)]
    event = {"ph": "X", "cat": "kernel", "name": "k", "ts": 5, "dur": 2, "args": {"correlation": 4}}
    alone = {"cat": "gpu_memcpy", "name": "m", "ts": 8, "dur": 1}
    events = [event, {"cat": "cpu_op", "name": "c", "ts": 0, "dur": 9}, alone, {"cat": "kernel", "name": "no duration"}]
    assert read_trace(json.dumps({"traceEvents": events})) == [Span("k", 5, 7, 4), Span("m", 8, 9, -3)]


def test_decode_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "COLD_BYTES", 1)
    small = [DecodeShape("1B", (20,) * 2, 1.03, 2900), DecodeShape("1B", (17, 1), 0.0)]
    measurements, bars = decode.measure_decode(False, CPU, small)
    assert [each.name for each in measurements] == ["decode 1B 2×20", "decode 1B 2 mixed"]
    assert measurements[1].note == "no SDPA: lengths differ"
    assert [bar.reached for bar in bars] == [None, True]


def test_a_wrong_kernel_is_no_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "COLD_BYTES", 1)
    monkeypatch.setattr(decode, "decode_attention", lambda query, *_, out, **__: out)
    _, bars = decode.measure_decode(False, CPU, [DecodeShape("1B", (20,) * 2)])
    assert bars[-1].reached is False


def test_prefill_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged, "COLD_BYTES", 1)
    monkeypatch.setattr(prefill, "CHECKED", 4)
    small = [PrefillShape("1B", 1, 8, 8, 350.0)]
    hybrid = HybridShape(DecodeShape("1B", (9,)), PrefillShape("1B", 1, 4, 20), 300.0)
    measurements, bars = prefill.measure_prefill(False, CPU, small, hybrid)
    assert [each.name for each in measurements] == [
        "prefill 1B 1×8",
        "hybrid step, decode 1B 1×9 and prefill 1B 1×(4 + 16)",
    ]
    assert [bar.reached for bar in bars] == [None, None, True]


@pytest.fixture
def tiny_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 1B part over a model and a list that a processor answers in a second."""
    monkeypatch.setitem(workloads.MODELS, "1b", TINY)
    short = [PromptOfLength([number, 5, 7], 4 + number % 3) for number in range(64)]
    for module in (end_to_end, workloads):
        monkeypatch.setattr(module, "requests", lambda _: short)
    few = {64: end_to_end.SHARES["1b"][64], 1: end_to_end.SHARES["1b"][1]}
    monkeypatch.setattr(end_to_end, "SHARES", {"1b": few})
    for name, value in (("ROUNDS", 1), ("SHORT_ROUNDS", 1)):
        monkeypatch.setattr(end_to_end, name, value)
    for name, value in (("WARM", 2), ("STEPS", 4)):
        monkeypatch.setattr(steady, name, value)


def profile_of_nothing(work: Any) -> list[Span]:
    work()
    return [Span("attention", 0, 10, 1), Span("attention", 11, 12, 2)]


@pytest.mark.slow
def test_a_whole_model_in_small(tmp_path: Path, tiny_list: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "profiled", profile_of_nothing)
    measurements, bars = end_to_end.measure_model("1b", CARD, tmp_path, judged=False)
    named = {each.name: each for each in measurements}
    assert list(named) == [
        "start, Triton's cache cold",
        "1b, 64 requests",
        "1b, 64 at once against one at a time",
        "1b, 1 request",
        "1b, KV memory of 64 requests",
        "steady decode of 64",
        "steady decode of 64, a step's largest kernels",
    ]
    assert list(named["start, Triton's cache cold"].figures) == ["import", "LLM()", "first token", "16 more tokens"]
    # One block for each sequence, of the 256 that a buffer has.
    assert named["1b, KV memory of 64 requests"].figures["saving"].value == pytest.approx(1 - 1 / 256)
    share = named["1b, 64 requests"].figures
    assert share["share"].value == pytest.approx(share["rate"].value / share["floor"].value)
    assert [bar.reached for bar in bars] == [None, None, None, True, None, None]


@pytest.mark.slow
def test_online_in_small(tmp_path: Path, tiny_list: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server in a process of its own, asked by users in two others."""
    monkeypatch.setattr(online, "requests", end_to_end.requests)
    monkeypatch.setattr(online, "SECONDS", 0.5)
    monkeypatch.setattr(online, "LOADS", (0.5,))
    monkeypatch.setattr(client, "PROCESSES", 2)
    monkeypatch.setattr(client, "LEAD", 1.0)
    measurements, bars = online.measure_online(tmp_path, judged=False)
    assert [each.name for each in measurements] == [
        "1b, capacity",
        "1b, all at once through the server",
        "1b, Poisson arrivals at 50% of capacity",
    ]
    figures = measurements[-1].figures
    assert list(figures) == [
        "requests", "rate", *(f"{name} p{part}" for name in ("TTFT", "ITL") for part in (50, 90, 99)),
    ]  # fmt: skip
    assert figures["TTFT p50"].value <= figures["TTFT p99"].value
    assert [bar.reached for bar in bars] == [None]


def test_arrivals_are_poisson_and_repeatable() -> None:
    listed = workloads.requests("1b")
    arrivals = online.poisson(listed, 50.0, 30.0)
    assert arrivals == online.poisson(listed, 50.0, 30.0)
    assert len(arrivals) == pytest.approx(1500, rel=0.08)
    assert [each.request for each in arrivals[:300]] == [*listed, *listed[:44]]
    pauses = [after.at - before.at for before, after in pairwise(arrivals)]
    assert pstdev(pauses) == pytest.approx(fmean(pauses), rel=0.1)


def test_experiences_become_percentiles() -> None:
    request = PromptOfLength([1], 3)
    found = [client.Experience(0.0, ttft / 1000, (0.002, 0.004), 3, 2.0) for ttft in range(1, 102)]
    measured = online.experienced("x", [client.Arrival(1.0, request)] * 101, found)
    values = {name: figure.value for name, figure in measured.figures.items()}
    assert values["TTFT p50"] == pytest.approx(51)
    assert values["TTFT p99"] == pytest.approx(100)
    assert values["ITL p50"] == pytest.approx(3)
    assert values["rate"] == pytest.approx(303 / 2)
    late = [client.Experience(0.2, 0.1, (0.1,), 3, 1.0)]
    assert "up to 200 ms late" in online.experienced("x", [client.Arrival(1.0, request)], late).note
    failed = [client.Experience(0.0, 0.0, (), 0, 1.0)]
    with pytest.raises(VeloError, match="1 of 1 requests failed"):
        online.experienced("x", [client.Arrival(0.0, request)], failed)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(VeloError, match=r"the server did not start: .*config\.json"), measured_server(tmp_path):
        pass


def test_a_start_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(VeloError, match=r"the start of .* failed: .*config\.json"):
        start.measure_start(tmp_path)


def test_the_measured_models_are_what_they_are_called(tmp_path: Path) -> None:
    from velollm_cuda.models.reading import read_model_config
    from velollm_cuda.tokens import Tokenizer

    for name, shape in workloads.MODELS.items():
        config = read_model_config(models.write_model(tmp_path / name, name))
        assert config.body_parameters == shape.body
        assert config.vocabulary * config.hidden == shape.head
        assert config.qk_norm == shape.qk_norm
        assert config.layout(16, 2).bytes_per_token == shape.kv_bytes
        assert Tokenizer.load(tmp_path / name).size == shape.vocabulary


def test_host_runs_anywhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(host, "ROUNDS", 1)
    monkeypatch.setattr(host, "SEQUENCES", 8)
    assert [each.name for each in host.measure_host(4)] == [
        "host, 4 requests of the 1b list",
        "host, a prefix of 1024 tokens",
    ]
    file = tmp_path / "host.json"
    assert main(["host", "-o", str(file)]) == 0
    assert capsys.readouterr().out.startswith("host on no GPU")
    assert json.loads(file.read_text())["machine"]["card"] is None
    assert main(["host", "--json", "-o", str(tmp_path / "no" / "folder.json")]) == 1
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("part", sorted(PARTS.keys() - ANYWHERE))
def test_other_parts_need_a_gpu(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert main([part]) == 1
    said = capsys.readouterr().err
    assert said == f"velollm: bench {part}: needs an NVIDIA GPU, and torch finds none; `bench host` runs anywhere\n"

"""No figure above the memory's bandwidth."""

from __future__ import annotations

import json
import lzma
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from velollm_core.benchmark.ceiling import decode_ceiling, last_level_cache, prefill_ceiling
from velollm_core.benchmark.conditions import Sources
from velollm_core.benchmark.plausibility import judge_decode, judge_prefill
from velollm_core.figures import Interval, Rate
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.machine import Hardware
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.testing.plugin_contract import some_hardware

GIB = 2**30


@pytest.mark.parametrize(
    ("decode", "verdict"), [(106.0, "impossible"), (104.0, "plausible"), (50.0, "plausible"), (19.0, "slow")]
)
def test_verdicts(decode: float, verdict: str) -> None:
    judged = judge_decode(decode, 100.0, "1 GiB a token")
    assert judged.verdict == verdict
    assert "1 GiB a token" in judged.text


def test_what_is_unknown_says_why() -> None:
    assert judge_decode(5.0, None, "the memory bandwidth is unknown").text.endswith("bandwidth is unknown")
    assert judge_decode(None, 5.0, "x").verdict == "unknown"


def model(gib: int) -> ModelSpec:
    layer = LayerSpec(0, heads=8, kv_heads=8, key_length=128, value_length=128, dense_bytes=gib * GIB)
    return ModelSpec("m", "llama", "m.gguf", "gguf", 4096, 1024, 1000, (layer,), parameters=gib * GIB // 2)


def machine(bandwidth: Rate | None, *gpus: Gpu) -> Hardware:
    hardware = some_hardware()
    return evolve(hardware, cpu=evolve(hardware.cpu, bandwidth=bandwidth), gpus=gpus)


def test_ceiling_is_bandwidth_over_bytes() -> None:
    ceiling = decode_ceiling(model(4), machine(Rate(40 * GIB, "measured", Interval(39 * GIB, 44 * GIB))), 0)
    assert ceiling.rate == pytest.approx(11.0)
    deeper = decode_ceiling(model(4), machine(Rate(40 * GIB, "measured")), 4096)
    assert deeper.rate is not None
    assert deeper.rate < 10.0


def test_all_gpus_together_bound_any_placement() -> None:
    gpu = Gpu(0, "nvidia", "X", bandwidth=Rate(400 * GIB, "nominal"))
    ceiling = decode_ceiling(model(4), machine(None, gpu, evolve(gpu, index=1)), 0)
    assert ceiling.rate == pytest.approx(200.0)


def test_prefill_is_bound_by_arithmetic() -> None:
    """132 multiprocessors of 4096 operations at 1.98 GHz, four times that in 4 bits; 2 a parameter and token."""
    gpu = Gpu(0, "nvidia", "X", compute_capability="9.0", multiprocessors=132)
    known = prefill_ceiling(model(4), machine(None, gpu), 512)
    assert known.rate is not None
    parameters = 4 * 132 * 4096 * 1.98e9 / known.rate / 2
    assert parameters == pytest.approx(2 * GIB, rel=0.1)
    assert prefill_ceiling(model(4), machine(None, evolve(gpu, multiprocessors=None)), 512).rate is None


@pytest.mark.parametrize(("prefill", "impossible"), [(1060.0, True), (1040.0, False), (None, False)])
def test_prefill_above_all_arithmetic_is_impossible(prefill: float | None, impossible: bool) -> None:
    judged = judge_prefill(prefill, 1000.0, "1 Gflop a token")
    assert (judged is not None and judged.verdict == "impossible") == impossible
    assert judged is None or "1 Gflop a token" in judged.text
    assert judge_prefill(1e9, None, "unknown") is None


HEADERS = Path(__file__).parents[1] / "golden" / "big"


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Llama 3.1 8B in 16 bits, its header alone: it is planned for, not loaded."""
    (tmp_path / "large.gguf").write_bytes(lzma.decompress((HEADERS / "llama-3.1-8b-f16.gguf.header.xz").read_bytes()))
    return "large.gguf"


def test_a_server_that_is_too_fast_is_never_valid(paced_cli: Any, tmp_path: Path, large: str) -> None:
    """Five thousand tokens a second of a model of 15 GiB."""
    done = paced_cli("benchmark", "--model", large, "-o", "fast.jsonl", "--report", "r.md", pace={"gap": 2e-4})
    assert done.code == 0, done.stderr
    assert "NOT VALID: impossible, " in done.stdout
    assert "a cache, speculation, the wrong model, or a wrong table" in done.stdout
    assert "**Not valid: a speed is above what this machine allows" in (tmp_path / "r.md").read_text()
    assert paced_cli("benchmark", "--model", "model.gguf", "-o", "other.jsonl").code == 0
    compared = paced_cli("compare", "other.jsonl", "fast.jsonl")
    assert compared.code == 1
    assert compared.stderr.startswith("velollm: fast.jsonl: holds a run that cannot be (impossible, ")
    assert compared.stderr.count("\n") == 1
    told = json.loads(paced_cli("benchmark", "--model", large, "--json", pace={"gap": 2e-4}).stdout)
    assert told["plausibility"]["verdict"] == "impossible"


def test_no_ceiling_without_bandwidth_or_within_the_cache() -> None:
    assert decode_ceiling(model(4), machine(None), 0).rate is None
    small = evolve(model(4), layers=(LayerSpec(0, dense_bytes=2**20),))
    ceiling = decode_ceiling(small, machine(Rate(40 * GIB, "measured")), 0)
    assert ceiling.rate is None
    assert "of cache" in ceiling.basis


def test_last_level_cache(tmp_path: Path) -> None:
    assert last_level_cache(Sources(sys=tmp_path)) == 64 * 2**20
    for index, size in enumerate(("48K", "2048K", "260M", "rubbish")):
        folder = tmp_path / f"devices/system/cpu/cpu0/cache/index{index}"
        folder.mkdir(parents=True)
        (folder / "size").write_text(size + "\n")
    assert last_level_cache(Sources(sys=tmp_path)) == 260 * 2**20

"""No figure above the memory's bandwidth."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.benchmark.ceiling import decode_ceiling, last_level_cache
from velollm_core.benchmark.conditions import Sources
from velollm_core.benchmark.plausibility import judge_decode
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

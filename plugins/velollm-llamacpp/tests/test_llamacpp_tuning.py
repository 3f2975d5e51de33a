"""Plans for models and machines: what fits comes first, and each setting has its reason in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_llamacpp.backend import LlamaCppBackend
from velollm_llamacpp.emit import SUFFIXES, emit
from velollm_llamacpp.need import need
from velollm_llamacpp.plugin import optimize
from velollm_llamacpp.settings import chosen
from velollm_llamacpp.tuning import plan

from velollm_core.backends.setting import Plan, Value
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import ModelRefused
from velollm_core.figures import Rate
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.machine import Hardware
from velollm_core.models.files import read_model
from velollm_core.models.spec import LayerSpec, ModelSpec, TensorSpec
from velollm_core.testing import some_hardware

GIB = 1 << 30
WORKLOAD = Workload("test", "m")


def llama(layers: int = 32, width: int = 4096, kv_heads: int = 8, experts: int = 0) -> ModelSpec:
    """The shape of an 8B llama, or a mixture of experts built alike, as a header would say it."""
    names = [f"blk.{layer}.ffn_down{'_exps' if experts else ''}.weight" for layer in range(layers)]
    size = 14336 * width * max(1, experts) // 256 * 144
    tensors = tuple(TensorSpec(name, "q4_k", (14336, width, max(1, experts)), size) for name in names)
    layer = LayerSpec(0, heads=32, kv_heads=kv_heads, key_length=128, value_length=128, feed_forward=14336)
    layer = evolve(layer, expert_bytes=size) if experts else evolve(layer, dense_bytes=size)
    return ModelSpec(
        "llama",
        "llama",
        "/models/llama.gguf",
        "gguf",
        131072,
        width,
        128256,
        tuple(evolve(layer, index=index) for index in range(layers)),
        expert_count=experts,
        expert_used=2 if experts else 0,
        tensors=tensors,
        tied_output=True,
    )


def machine(available: int, gpu_free: int | None = None) -> Hardware:
    hardware = some_hardware()
    memory = evolve(hardware.memory, total=2 * available, available=available)
    gpus: tuple[Gpu, ...] = ()
    if gpu_free is not None:
        bandwidth = Rate(1e12, "nominal")
        gpus = (Gpu(0, "nvidia", "A GPU", memory_total=2 * gpu_free, memory_free=gpu_free, bandwidth=bandwidth),)
    return evolve(hardware, memory=memory, gpus=gpus)


def values(found: Plan) -> dict[str, Value]:
    return {setting.name: setting.value for setting in found.settings}


def made(model: ModelSpec, hardware: Hardware, workload: Workload = WORKLOAD) -> Plan:
    return plan(model, hardware, workload, offloads=True)


def test_every_setting_is_known_explained_and_can_be_written() -> None:
    found = made(llama(), machine(64 * GIB, 24 * GIB))
    assert chosen(found.settings).keys() == values(found).keys()
    for setting in found.settings:
        assert setting.where == "flag"
        assert len(setting.reason) > 10
    for suffix in SUFFIXES:
        assert emit(found, suffix)


def test_a_small_model_on_a_cpu_keeps_all_quality() -> None:
    found = made(llama(), machine(64 * GIB))
    assert found.fits
    assert (
        values(found).items()
        >= {
            "--ctx-size": 8192,
            "--parallel": 1,
            "--cache-type-k": "f16",
            "--flash-attn": "auto",
            "--n-gpu-layers": 0,
            "--threads": 4,
            "--cache-ram": 8192,
        }.items()
    )
    context = next(setting for setting in found.settings if setting.name == "--ctx-size")
    assert "the server's own choice, 131072, would cache 16.00 GiB instead of 1.00 GiB" in context.reason


def test_slots_each_get_their_context() -> None:
    found = made(llama(), machine(64 * GIB), evolve(WORKLOAD, concurrency=4, context=2000))
    assert values(found).items() >= {"--ctx-size": 8192, "--parallel": 4, "--kv-unified": False}.items()


def test_short_memory_costs_cache_precision_first_and_flash_attention_comes_with_it() -> None:
    wide = made(llama(), machine(64 * GIB), evolve(WORKLOAD, context=32768))
    assert wide.memory is not None
    tight = made(llama(), machine(wide.memory.devices[0].high - GIB), evolve(WORKLOAD, context=32768))
    assert tight.fits
    assert (
        values(tight).items()
        >= {
            "--ctx-size": 32768,
            "--cache-type-k": "q8_0",
            "--cache-type-v": "q8_0",
            "--flash-attn": "on",
        }.items()
    )
    cache = next(setting for setting in tight.settings if setting.name == "--cache-type-v")
    assert "save 1.88 GiB" in cache.reason
    assert int(str(values(tight)["--cache-ram"])) < 8192


def test_what_fits_nowhere_is_planned_small_and_said() -> None:
    found = made(llama(), machine(GIB))
    assert found.fits is False
    assert "does not fit" in found.notes[0]
    assert "a smaller model or quantization is needed" in found.notes[0]


def test_a_gpu_takes_as_many_layers_as_surely_fit() -> None:
    all_of_it = values(made(llama(), machine(64 * GIB, 24 * GIB)))
    some_of_it = values(made(llama(), machine(64 * GIB, 2 * GIB)))
    assert all_of_it["--n-gpu-layers"] == 33
    assert 0 < int(str(some_of_it["--n-gpu-layers"])) < 33


def test_experts_stay_in_main_memory_before_layers_do() -> None:
    found = made(llama(experts=8), machine(64 * GIB, 6 * GIB))
    assert values(found)["--n-gpu-layers"] == 33
    assert int(str(values(found)["--n-cpu-moe"])) > 0
    reason = next(setting.reason for setting in found.settings if setting.name == "--n-cpu-moe")
    assert "a token uses 2 of 8 experts" in reason


def test_a_build_without_gpu_support_leaves_the_gpu_alone() -> None:
    found = plan(llama(), machine(64 * GIB, 24 * GIB), WORKLOAD, offloads=False)
    assert values(found)["--n-gpu-layers"] == 0
    assert "without support for the GPU" in found.notes[0]


def test_threads_follow_what_the_container_grants() -> None:
    hardware = machine(64 * GIB)
    granted = evolve(hardware, cpu=evolve(hardware.cpu, quota=2.0, allowed_cores=3))
    assert values(made(llama(), granted)).items() >= {"--threads": 2, "--threads-batch": 2}.items()


def test_the_workload_says_how_much_context_is_needed() -> None:
    model = llama()
    assert need(model, WORKLOAD).tokens == 8192
    assert need(evolve(model, context_length=2048), WORKLOAD).tokens == 2048
    long = evolve(WORKLOAD, tasks=(Task("t", "x" * 20_000, 500, 1),))
    assert need(model, long).tokens == 20_736
    short = evolve(WORKLOAD, tasks=(Task("t", "x" * 100, 50, 1),))
    assert (need(model, short).tokens, need(model, short).least) == (8192, 256)
    assert need(model, evolve(WORKLOAD, context=1000)).tokens == 1024


def test_memory_too_short_for_a_conversation_still_serves_the_workload() -> None:
    short = evolve(WORKLOAD, tasks=(Task("t", "x" * 100, 50, 1),))
    enough = made(llama(), machine(64 * GIB), evolve(WORKLOAD, context=256)).memory
    assert enough is not None
    found = made(llama(), machine(enough.devices[0].high), short)
    assert found.fits
    assert values(found)["--ctx-size"] == 256


def test_a_model_that_llamacpp_refuses_is_refused() -> None:
    with pytest.raises(ModelRefused):
        made(evolve(llama(), refusal="it is a draft"), machine(64 * GIB))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 64), st.none() | st.integers(0, 32), st.integers(1, 8), st.none() | st.integers(1, 60_000))
def test_plans_never_promise_what_llamacpp_refuses(
    available: int, gpu_free: int | None, slots: int, context: int | None
) -> None:
    hardware = machine(available * GIB, None if gpu_free is None else gpu_free * GIB)
    found = made(llama(), hardware, evolve(WORKLOAD, concurrency=slots, context=context))
    said = chosen(found.settings)
    assert said["--cache-type-v"] == "f16" or said["--flash-attn"] == "on"
    assert int(str(said["--ctx-size"])) % (256 * slots) == 0
    assert int(str(said["--ubatch-size"])) <= int(str(said["--batch-size"])) <= int(str(said["--ctx-size"]))
    assert found.fits or found.notes[0].startswith("this ")
    if gpu_free is None:
        assert said["--n-gpu-layers"] == 0


def test_the_hook_plans_for_its_own_backend(model: Path) -> None:
    found = optimize(LlamaCppBackend(), read_model(model), some_hardware(), WORKLOAD)
    assert found is not None
    assert (found.backend, found.model) == ("llamacpp", str(model))
    assert values(found)["--ctx-size"] == 2048

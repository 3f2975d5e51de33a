"""Plans: from the model's bytes, the machine, the workload, and what the server runs with."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from velollm_ollama import catalogue, export
from velollm_ollama.automatic import automatic_batch, default_context, predicted_bytes, single_slot
from velollm_ollama.config import OllamaConfig
from velollm_ollama.evidence import Evidence
from velollm_ollama.facts import Facts
from velollm_ollama.log import read_log
from velollm_ollama.readers import parse_settings
from velollm_ollama.show import show_spec
from velollm_ollama.testing import tiny_model
from velollm_ollama.tuning import needed_context, optimize
from velollm_ollama.version import Version, parse_version

from velollm_core.backends.setting import Plan, Setting
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import ModelRefused, VeloError
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.machine import Hardware
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.testing import some_hardware

GIB = 2**30
MODERN, OLD = Version(0, 33, 0), Version(0, 24, 0)
STATES = ["api", "env_fa_0_kv_q8", "env_fa_off_word_kv_q8_par4", "env_kv_bogus", "env_llama_arg", "env_max_queue_1",
          "env_quirks", "faults", "parallel_4", "queue_full", "repeats"]  # fmt: skip


def tiny() -> ModelSpec:
    model = tiny_model()
    return show_spec("tiny", {"model_info": model.info, "tensors": model.tensors}, model.size)


def big(layers: int = 32, context: int = 131072, architecture: str = "llama") -> ModelSpec:
    """Shaped like an 8B with 4.5 GiB of weights: 128 KiB of f16 cache a token."""
    layer = LayerSpec(
        0, heads=32, kv_heads=8, key_length=128, value_length=128, feed_forward=14336, dense_bytes=GIB // 8
    )
    blocks = tuple(evolve(layer, index=index) for index in range(layers))
    weights = {"embedding_bytes": 300 * 2**20, "output_bytes": 410 * 2**20, "file_bytes": 5 * GIB}
    return ModelSpec("big", architecture, "ollama:big", "ollama", context, 4096, 128256, blocks, **weights)  # type: ignore[arg-type]


def with_gpu(gib: int, free: int | None = None, host: int = 64) -> Hardware:
    gpu = Gpu(0, "nvidia", "Some GPU", memory_total=gib * GIB, memory_free=(gib if free is None else free) * GIB)
    return evolve(some_hardware(2 * host * GIB), gpus=(gpu,))


def settings_of(plan: Plan) -> dict[str, Setting]:
    return {setting.name: setting for setting in plan.settings}


def values(plan: Plan) -> dict[str, object]:
    return {setting.name: setting.value for setting in plan.settings}


def recorded(recordings: Path, folder: str) -> Facts:
    log = read_log((recordings / folder / "server.log").read_text(encoding="utf-8"))
    return Facts(Evidence(log.version, log))


def test_every_setting_has_a_reason_and_evidence() -> None:
    plan = optimize(big(), with_gpu(12), Workload("chat", "big", context=8192, concurrency=2), Facts())
    assert plan.backend == "ollama"
    assert plan.settings
    assert all(len(setting.reason) > 10 and setting.evidence for setting in plan.settings)
    assert plan.memory is not None
    assert plan.fits


def test_the_workloads_need_is_the_context() -> None:
    plan = optimize(big(), with_gpu(24), Workload("chat", "big", context=8192), Facts())
    assert settings_of(plan)["num_ctx"].value == 8192
    assert settings_of(plan)["num_ctx"].where == "model"
    assert plan.load is not None
    assert (plan.load.total_context, plan.load.parallel, plan.load.kv_unified) == (8192, 1, False)
    assert plan.load.gpu_layers == 33


def test_without_a_need_the_largest_that_stays_whole_on_the_gpu() -> None:
    """24 GiB: the tier alone would take 32768, and 12 GiB would spill at it."""
    roomy = optimize(big(), with_gpu(24), Workload("chat", "big"), Facts())
    tight = optimize(big(), with_gpu(12), Workload("chat", "big"), Facts())
    for plan in (roomy, tight):
        assert plan.load is not None
        assert plan.load.gpu_layers == 33
        assert plan.fits
    assert roomy.load is not None
    assert tight.load is not None
    assert roomy.load.total_context > 65536 > tight.load.total_context > 16384
    assert "keeps the whole model on the GPU" in settings_of(tight)["num_ctx"].reason


def test_on_a_cpu_alone_ollamas_own_default() -> None:
    plan = optimize(big(), some_hardware(64 * GIB), Workload("chat", "big"), Facts())
    assert values(plan)["num_ctx"] == 4096
    assert plan.load is not None
    assert not plan.load.mmap


def test_what_was_not_trained_for_is_not_promised() -> None:
    plan = optimize(tiny(), some_hardware(), Workload("chat", "tiny", context=100_000), Facts())
    assert values(plan)["num_ctx"] == 2048
    assert "100000 were asked for" in settings_of(plan)["num_ctx"].reason


def test_slots_cost_a_context_each_and_memory_bounds_them() -> None:
    plan = optimize(big(), with_gpu(12), Workload("agents", "big", context=8192, concurrency=4), Facts())
    assert values(plan)["OLLAMA_NUM_PARALLEL"] == 4
    assert plan.load is not None
    assert plan.load.total_context == 4 * 8192
    many = optimize(big(), some_hardware(32 * GIB), Workload("agents", "big", context=65536, concurrency=8), Facts())
    slots = values(many)["OLLAMA_NUM_PARALLEL"]
    assert isinstance(slots, int)
    assert 1 <= slots < 8
    assert any("share" in note for note in many.notes)


@pytest.mark.parametrize(
    ("architecture", "version", "slots"), [("qwen35", MODERN, 1), ("qwen35", Version(0, 13, 0), 3)]
)
def test_architectures_that_are_held_at_one_slot(architecture: str, version: Version, slots: int) -> None:
    facts = Facts(Evidence(version))
    plan = optimize(
        big(architecture=architecture), with_gpu(24), Workload("w", "big", context=4096, concurrency=3), facts
    )
    assert values(plan)["OLLAMA_NUM_PARALLEL"] == slots


def test_embedding_models_get_one_slot() -> None:
    plan = optimize(tiny(), some_hardware(), Workload("w", "tiny", concurrency=3), Facts(completes=False))
    assert values(plan)["OLLAMA_NUM_PARALLEL"] == 1


def test_an_8_bit_cache_only_where_f16_would_spill() -> None:
    plan = optimize(big(), with_gpu(10), Workload("w", "big", context=24576), Facts())
    assert values(plan)["OLLAMA_KV_CACHE_TYPE"] == "q8_0"
    assert values(plan)["OLLAMA_FLASH_ATTENTION"] is True
    assert any("every model" in note for note in plan.notes)
    easy = values(optimize(big(), with_gpu(24), Workload("w", "big", context=24576), Facts()))
    assert "OLLAMA_KV_CACHE_TYPE" not in easy
    assert "OLLAMA_FLASH_ATTENTION" not in easy


def test_a_model_that_does_not_fit_is_left_to_llama_cpp() -> None:
    plan = optimize(big(), with_gpu(4), Workload("w", "big", context=4096), Facts())
    assert "num_gpu" not in values(plan)
    assert any("switches its fitting off" in note for note in plan.notes)


def test_threads_only_where_this_process_has_fewer_cores_than_the_machine() -> None:
    machine = some_hardware(cores=8)
    assert "num_thread" not in values(optimize(tiny(), machine, Workload("w", "tiny"), Facts()))
    limited = evolve(machine, cpu=evolve(machine.cpu, quota=2.0))
    assert values(optimize(tiny(), limited, Workload("w", "tiny"), Facts()))["num_thread"] == 2


def test_the_hosts_prompt_cache_is_counted() -> None:
    small, large = some_hardware(8 * GIB), some_hardware(64 * GIB)
    bounded = values(optimize(tiny(), small, Workload("w", "tiny"), Facts()))["LLAMA_ARG_CACHE_RAM"]
    assert isinstance(bounded, int)
    assert 0 < bounded < 4096
    assert "LLAMA_ARG_CACHE_RAM" not in values(optimize(tiny(), large, Workload("w", "tiny"), Facts()))
    assert "LLAMA_ARG_CACHE_RAM" not in values(optimize(tiny(), small, Workload("w", "tiny"), Facts(Evidence(OLD))))


@pytest.mark.parametrize("folder", STATES)
def test_a_plan_and_a_script_for_every_recorded_state(recordings: Path, folder: str) -> None:
    facts = recorded(recordings, folder)
    plan = optimize(tiny(), some_hardware(64 * GIB), Workload("w", "tiny", context=1024), facts)
    script = export.emit(plan, ".sh", facts.version)
    environment = parse_settings(script, ".sh")
    assert environment["OLLAMA_NUM_PARALLEL"] == "1"
    assert environment.keys() <= catalogue.variables_in(facts.version).keys()
    assert "PARAMETER num_ctx 1024" in script


def test_what_is_broken_now_is_repaired(recordings: Path) -> None:
    workload = Workload("w", "tiny")
    bogus = values(optimize(tiny(), some_hardware(), workload, recorded(recordings, "env_kv_bogus")))
    assert bogus["OLLAMA_KV_CACHE_TYPE"] == "f16"
    off = values(optimize(tiny(), some_hardware(), workload, recorded(recordings, "env_fa_0_kv_q8")))
    assert (off["OLLAMA_KV_CACHE_TYPE"], off["OLLAMA_FLASH_ATTENTION"]) == ("f16", True)


def test_what_is_in_force_already_is_said(recordings: Path) -> None:
    plan = optimize(tiny(), some_hardware(), Workload("w", "tiny", concurrency=4), recorded(recordings, "parallel_4"))
    assert "in force already" in settings_of(plan)["OLLAMA_NUM_PARALLEL"].reason
    plan = optimize(tiny(), some_hardware(), Workload("w", "tiny"), recorded(recordings, "parallel_4"))
    assert "in force already" not in settings_of(plan)["OLLAMA_NUM_PARALLEL"].reason


def test_findings_about_the_server_are_notes() -> None:
    process = OllamaConfig.from_env({"OLLAMA_NUM_GPU": "99", "OLLAMA_SCHED_SPREAD": "no"}, MODERN, "process 7")
    plan = optimize(tiny(), some_hardware(), Workload("w", "tiny"), Facts(Evidence(MODERN, process=process)))
    assert any("OLLAMA_NUM_GPU" in note for note in plan.notes)
    assert any("newer than the tables" in note for note in optimize(
        tiny(), some_hardware(), Workload("w", "tiny"), Facts(Evidence(Version(0, 0, 0)))).notes)  # fmt: skip


@pytest.mark.parametrize("version", ["0.5.13", "0.13.0", "0.24.0", "0.29.0", "0.30.0", "0.33.0", "0.34.1", "0.0.0"])
def test_every_form_of_every_version_names_only_what_that_version_reads(version: str) -> None:
    found = parse_version(version)
    assert found is not None
    facts = Facts(Evidence(found))
    for hardware in (with_gpu(10), with_gpu(24), some_hardware(8 * GIB)):
        plan = optimize(big(), hardware, Workload("w", "big", context=16384, concurrency=2), facts)
        for suffix in export.SUFFIXES:
            assert export.emit(plan, suffix, found)
        names = parse_settings(export.emit(plan, ".env", found), ".env")
        assert all(catalogue.why_not(name, found) is None for name in names)


def test_refusals() -> None:
    with pytest.raises(ModelRefused, match="no reason"):
        optimize(evolve(tiny(), refusal="no reason"), some_hardware(), Workload("w", "tiny"), Facts())
    plan = optimize(tiny(), some_hardware(), Workload("w", "tiny"), Facts())
    with pytest.raises(VeloError, match=r"\.toml"):
        export.emit(plan, ".toml", None)
    unknown = evolve(plan, settings=(Setting("OLLAMA_NUM_GPU", 1, "env", "x", "rule"),))
    with pytest.raises(VeloError, match="num_gpu"):
        export.emit(unknown, ".sh", None)
    wrong = evolve(plan, settings=(Setting("num_ctx", "many", "model", "x", "rule"),))
    with pytest.raises(VeloError, match="whole number"):
        export.emit(wrong, ".sh", None)


def test_needs() -> None:
    assert needed_context(Workload("w", "m")) is None
    assert needed_context(Workload("w", "m", context=5)) == 5
    assert needed_context(Workload("w", "m", (Task("a", "x" * 100, 50, 1), Task("b", "x" * 1000, 7, 1)))) == 635


def test_what_ollama_chooses_by_itself() -> None:
    assert [default_context(with_gpu(gib), MODERN) for gib in (8, 22, 23, 46, 47)] == [4096, 4096, 32768, 32768, 262144]
    assert default_context(with_gpu(48), Version(0, 13, 0)) == 4096
    assert default_context(with_gpu(48), Version(0, 6, 0)) == 2048
    assert single_slot("mllama", Version(0, 9, 0))
    assert not single_slot("llama", MODERN)
    batches = [automatic_batch(tiny(), tokens, with_gpu(24), MODERN) for tokens in (4096, 4097, 32768, 32769)]
    assert batches == [512, 1024, 1024, 2048]
    assert automatic_batch(tiny(), 8192, some_hardware(), MODERN) == 1024  # as recorded with four slots
    assert automatic_batch(big(), 65536, with_gpu(12), MODERN) == 512
    assert automatic_batch(tiny(), 65536, with_gpu(24), OLD) == 512
    assert predicted_bytes(tiny(), 2048) == 6616342 + 2 * 4 * 2 * 64 * 2048 * 2

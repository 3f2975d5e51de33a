"""Plans for the engine: on a card, on a CPU, and none for what it does not run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import velollm_cuda.plugin
from attrs import evolve
from velollm_cuda.backend import CudaBackend
from velollm_cuda.testing import write_tiny_model

from velollm_core.backends.backend import Emits
from velollm_core.backends.setting import Plan, Value
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError, ModelRefused
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.machine import Hardware
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.testing import Outcome, some_hardware

GIB = 2**30
H100 = Gpu(
    0, "nvidia", "NVIDIA H100 80GB HBM3", compute_capability="9.0", memory_total=80 * GIB, memory_free=79 * GIB
)  # fmt: skip
LAYER = LayerSpec(0, heads=32, kv_heads=8, key_length=128, value_length=128, feed_forward=14336)
LLAMA_8B = ModelSpec(
    "llama", "llama", "/models/llama 8b", "safetensors", 131072, 4096, 128256,
    tuple(evolve(LAYER, index=index, dense_bytes=2 * 218_112_000) for index in range(32)),
    embedding_bytes=2 * 525_336_576, output_bytes=2 * 525_336_576, parameters=8_030_261_248,
)  # fmt: skip


def planned(model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan:
    plan = velollm_cuda.plugin.optimize(CudaBackend(hardware), model, hardware, workload)
    assert plan is not None
    return plan


def values(plan: Plan) -> dict[str, Value]:
    assert all(setting.reason and setting.where == "flag" for setting in plan.settings)
    return {setting.name: setting.value for setting in plan.settings}


def on_card(**changes: object) -> Hardware:
    return evolve(some_hardware(), gpus=(evolve(H100, **changes),))


def test_a_card_with_room() -> None:
    plan = planned(LLAMA_8B, on_card(), Workload("w", "m", concurrency=16, context=4096))
    assert values(plan) == {"--max-model-len": 4096, "--max-num-seqs": 32, "--gpu-memory-utilization": 0.9}
    assert plan.fits
    assert plan.memory is not None
    (part,) = plan.memory.devices
    assert part.device == "gpu0"
    assert part.weights.value == LLAMA_8B.tensor_bytes
    assert part.kv.value == 16 * 4096 * 131072 + 16 * 131072
    (note,) = plan.notes
    # 72 GiB less 15 of weights and 5 of work, at half a GiB each.
    assert 95 <= int(note.split()[6]) <= 110, note


def test_a_card_without_room() -> None:
    plan = planned(LLAMA_8B, on_card(memory_free=10 * GIB), Workload("w", "m"))
    assert plan.fits is False
    assert values(plan)["--max-model-len"] == 8192


def test_the_longest_request_decides() -> None:
    workload = Workload("w", "m", (Task("t", "x" * 20000, 100, 1),), concurrency=300)
    assert values(planned(LLAMA_8B, on_card(), workload)) == {
        "--max-model-len": 20164, "--max-num-seqs": 300, "--gpu-memory-utilization": 0.9,
    }  # fmt: skip


def test_without_a_card() -> None:
    plan = planned(LLAMA_8B, some_hardware(memory=64 * GIB), Workload("w", "m", concurrency=2, context=1024))
    assert values(plan) == {
        "--max-model-len": 1024, "--max-num-seqs": 8, "--kv-cache-bytes": 2 * 1024 * 262144 + 16 * 262144,
    }  # fmt: skip
    assert plan.memory is not None
    assert plan.memory.devices[0].device == "host"
    assert plan.memory.devices[0].weights.value == 4 * 8_030_261_248
    assert "by plain torch" in plan.notes[0]


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (evolve(LLAMA_8B, format="gguf"), "is gguf; this engine runs folders of safetensors"),
        (evolve(LLAMA_8B, layers=(evolve(LAYER, expert_feed_forward=1),)), "layers that this engine does not run"),
        (evolve(LLAMA_8B, layers=(evolve(LAYER, k_only=True),)), "layers that this engine does not run"),
    ],
)
def test_what_it_does_not_run(model: ModelSpec, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        planned(model, on_card(), Workload("w", "m"))


def test_a_plan_becomes_a_script(tmp_path: Path) -> None:
    backend = CudaBackend(on_card())
    assert isinstance(backend, Emits)
    plan = planned(LLAMA_8B, on_card(), Workload("w", "m", context=4096))
    script = tmp_path / "serve.sh"
    script.write_text(backend.emit(plan, ".sh"))
    subprocess.run(["sh", "-n", script], check=True)
    assert script.read_text().splitlines()[-1] == (
        "exec velollm cuda serve '/models/llama 8b' --max-model-len 4096 --max-num-seqs 8 "
        '--gpu-memory-utilization 0.9 "$@"'
    )
    with pytest.raises(BackendError, match=r"cannot write a plan as \.yaml"):
        backend.emit(plan, ".yaml")


def test_the_command_plans(velollm: Callable[..., Outcome], tmp_path: Path) -> None:
    folder, script = write_tiny_model(tmp_path / "model"), tmp_path / "serve.sh"
    asked = ("--backend", "cuda", "--binary", "embedded", "--model", folder, "--context", "256", "-o", script)
    done = velollm("optimize", *asked)
    assert done.code == 0, done.stderr
    assert "--max-model-len" in done.stdout
    assert f"velollm cuda serve {folder} --max-model-len 256 --max-num-seqs 8" in script.read_text()

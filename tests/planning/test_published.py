"""Published models planned for known machines: what goes where, what fits, and that the engine would take it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.devices import devices
from velollm_core.planning.answer import PlanAnswer, make_answer
from velollm_core.planning.asked import Asked
from velollm_core.planning.sources import Sources

GOLDEN = Path(__file__).parent / "published.json"
MACHINES = ("h100", "rtx4090", "cpu", "laptop", "m2max")
MODELS = (
    "llama-3.1-8b-q4km",
    "gemma-3-27b-q4km",
    "gpt-oss-20b-mxfp4",
    "mixtral-8x7b-q4km",
    "qwen3-8b-f16",
    "qwen3-next-80b-q4km",
    "deepseek-v3-q4km",
    "mamba2-2.7b-f16",
)
CASES = [(model, machine) for model in MODELS for machine in MACHINES]
CONTEXT = 32768


def key(model: str, machine: str) -> str:
    return f"{model} on {machine}"


@pytest.fixture(scope="session")
def answers(published, machine):
    """Each case planned once, by formula, for one request of 32768 tokens."""
    known: dict[tuple[str, str], PlanAnswer] = {}

    def answer(model: str, name: str) -> PlanAnswer:
        if (model, name) not in known:
            sources = Sources(published(model), devices(machine(name)))
            known[model, name] = make_answer(sources, Asked(context=CONTEXT))
        return known[model, name]

    return answer


def exact(memory: MemoryBreakdown) -> dict[str, list[int]]:
    return {each.device: [each.weights.value, each.kv.value, each.recurrent.value] for each in memory.devices}


def row(answer: PlanAnswer) -> dict[str, object]:
    """What must never move unnoticed: exact bytes; how many layers a crowded GPU takes hangs on its scratch memory."""
    pick = answer.pick
    crowded = pick.load.cpu_moe_layers > 0 or 0 < pick.load.gpu_layers <= answer.model.layers
    return {"fits": pick.fit.verdict, "weights_kv_state": "crowded" if crowded else exact(pick.memory)}


def test_the_table_is_the_golden_one(answers) -> None:
    table = {key(*case): row(answers(*case)) for case in CASES}
    if "WRITE_GOLDEN" in os.environ:
        lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(made)}" for name, made in table.items())
        GOLDEN.write_text(f"{{\n{lines}\n}}\n")
    golden = json.loads(GOLDEN.read_text())
    assert {name: made for name, made in table.items() if made != golden.get(name)} == {}
    assert set(table) == set(golden)


@pytest.mark.parametrize(("model", "name"), CASES, ids=lambda each: str(each))
def test_every_pick_can_be_taken(answers, published, machine, model: str, name: str) -> None:
    answer = answers(model, name)
    found = answer.alternatives
    assert bool(found.picks) != (found.closest is not None)
    for pick in found.picks:
        assert pick.fit.verdict in ("yes", "maybe")
        assert pick.command is not None
        assert pick.start.decode is not None
        if name != "m2max" or pick.load.gpu_layers:
            assert pick.full.decode.value <= pick.start.decode.value * 1.0001
    if found.closest is not None:
        assert found.missing > 0
        assert "short of a sure fit" in found.why
    if answer.pick.fit.verdict == "yes":
        assert found.picks[0].load == answer.pick.load
    assert sum(sum(each) for each in exact(answer.pick.memory).values()) >= published(model).tensor_bytes * 0.95


# Bytes of KV in MiB at 32768 tokens, one sequence, llama.cpp's own figures.
@pytest.mark.parametrize(
    ("model", "cache"),
    [("llama-3.1-8b-q4km", 4096), ("gemma-3-27b-q4km", 3184), ("deepseek-v3-q4km", 2196), ("qwen3-next-80b-q4km", 768)],
)
def test_the_cache_is_llama_cpps_own(answers, model: str, cache: int) -> None:
    devices_ = answers(model, "cpu").pick.memory.devices
    assert sum(each.kv.value for each in devices_) == cache << 20


@pytest.mark.parametrize("model", [model for model in MODELS if "next" not in model and "mamba" not in model])
def test_a_better_machine_is_predicted_to_be_faster(answers, model: str) -> None:
    h100, laptop = (answers(model, name).pick.start.decode for name in ("h100", "laptop"))
    assert h100.value > laptop.value

"""`velollm plan --simulate`: a plan put through the real scheduler."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from click.testing import CliRunner, Result

from velollm_core.commands.plan import command
from velollm_core.engine.loads import Lengths
from velollm_core.engine.simulator import Slo
from velollm_core.errors import VeloError
from velollm_core.hardware.machine import Hardware
from velollm_core.models.devices import devices
from velollm_core.models.fit import with_overhead
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.pick import Pick, Scene, Turn, gpu_shares, weigh
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.planning.simulation import simulate_plan, step_times
from velollm_core.planning.simulation_asked import SimulationAsked
from velollm_core.testing.test_model import write_test_model

SHORT = SimulationAsked("burst:20", Lengths((50, 100), (10, 20)), Slo())


def model() -> ModelSpec:
    """The shape of Llama 3.1 8B in F16."""
    layer = LayerSpec(0, heads=32, kv_heads=8, key_length=128, value_length=128, dense_bytes=436_224_000)
    table = 128256 * 4096 * 2
    return ModelSpec(
        "8b", "llama", "8b.gguf", "gguf", 131_072, 4096, 128_256, tuple(evolve(layer, index=i) for i in range(32)),
        embedding_bytes=table, output_bytes=table, parameters=8_030_000_000,
    )  # fmt: skip


def weighed(machine: Hardware, *, slots: int = 16, context: int = 2048) -> tuple[Scene, Pick]:
    """The model on ``machine``, all layers on its GPU."""
    found = devices(machine)
    spec = model()
    scene = Scene(
        spec, found, lambda load: with_overhead(memory(spec, load, gpu_shares(found)), found), Turn.within(context)
    )
    load = LoadSettings(total_context=slots * context, parallel=slots, gpu_layers=33)
    pick = weigh(scene, load, context)
    assert pick is not None
    return scene, pick


def test_a_step_takes_what_the_roofline_says(machine: Callable[[str], Hardware]) -> None:
    scene, pick = weighed(machine("h100"))
    times = step_times(scene.spec, scene.devices, pick)
    assert times.overlapped
    assert 16e9 / 3.4e12 < times.fixed < 16e9 / 1e12
    assert pick.full.decode
    alone = times.seconds(1, pick.context)
    assert alone == pytest.approx(1 / pick.full.decode.value, rel=0.05)


def test_more_slots_serve_a_burst_sooner(machine: Callable[[str], Hardware]) -> None:
    few, many = (
        simulate_plan(scene.spec, scene.devices, pick, SHORT)
        for scene, pick in (weighed(machine("h100"), slots=slots) for slots in (2, 16))
    )
    assert few.requests == many.requests == 20
    assert many.seconds < few.seconds / 3
    assert many.throughput > 3 * few.throughput
    assert many.sustainable_rate > few.sustainable_rate


def test_the_cache_bounds_what_runs_at_once(machine: Callable[[str], Hardware]) -> None:
    scene, pick = weighed(machine("h100"), slots=16, context=512)
    asked = evolve(SHORT, load="burst:40", lengths=Lengths((400, 400), (100, 100)))
    whole = simulate_plan(scene.spec, scene.devices, pick, asked)
    small = evolve(pick, memory=evolve(pick.memory, context=1024))
    tight = simulate_plan(scene.spec, scene.devices, small, asked)
    assert tight.requests == whole.requests == 40
    assert tight.peak_utilisation > 0.9
    assert tight.seconds > 2 * whole.seconds


def test_lengths_are_cut_to_the_context(machine: Callable[[str], Hardware]) -> None:
    scene, pick = weighed(machine("h100"), context=64)
    found = simulate_plan(scene.spec, scene.devices, pick, evolve(SHORT, lengths=Lengths()))
    assert (found.requests, found.refused) == (20, ())


def test_an_unknown_speed_is_said(machine: Callable[[str], Hardware]) -> None:
    scene, pick = weighed(machine("h100"))
    blind = tuple(evolve(device, bandwidth=None) for device in scene.devices)
    with pytest.raises(VeloError, match="nothing can be simulated"):
        simulate_plan(scene.spec, blind, pick, SHORT)


def test_a_recorded_list_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    path.write_text(
        '{"at": 1.5, "prompt_tokens": 9, "output_tokens": 3}\n\n{"at": 0, "prompt_tokens": 5, "output_tokens": 2}\n'
    )
    first, second = evolve(SHORT, load=str(path)).arrivals()
    assert (first.at, first.prompt_tokens, second.output_tokens) == (0.0, 5, 3)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        ("steady", "is no load"),
        ("steady:x", "is no load"),
        ("burst:0", "is no load"),
        ("ramp:1", "is no load"),
        ("steady:0", "a rate and a duration above 0"),
        ("steady:nan", "a rate and a duration above 0"),
        ("steady:inf", "inf requests a second for .* too many"),
        ("ramp:1:1e9", "too many to go through"),
        ("burst:1e9", "too many to go through"),
        ("steady:1e-9", "brings no request within"),
        ("nowhere.jsonl", "nowhere.jsonl: cannot be read"),
    ],
)
def test_what_is_no_load_is_refused(load: str, message: str) -> None:
    with pytest.raises(VeloError, match=message) as caught:
        evolve(SHORT, load=load).arrivals()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "",
        '{"at": 0}',
        '{"at": 0, "prompt_tokens": "x", "output_tokens": 1}',
        '{"at": NaN, "prompt_tokens": 1, "output_tokens": 1}',
        '{"at": -1, "prompt_tokens": 1, "output_tokens": 1}',
        '{"at": 0, "prompt_tokens": 0, "output_tokens": 1}',
        '{"at": 0, "prompt_tokens": 1, "output_tokens": 0}',
        '{"at": 0, "prompt_tokens": 1, "output_tokens": 1, "shared_prefix": 1}',
    ],
)
def test_a_damaged_list_names_its_place(tmp_path: Path, line: str) -> None:
    path = tmp_path / "load.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(VeloError, match=r"load\.jsonl"):
        evolve(SHORT, load=str(path)).arrivals()


@pytest.fixture
def plan(tmp_path: Path, machine_path: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command on the test model and the recorded server."""
    write_test_model(tmp_path / "model.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VELOLLM_ONLY_PLUGINS", "none")

    def run(*arguments: str) -> Result:
        given = ["model.gguf", "--context", "512", "--hardware", str(machine_path("cpu")), *arguments]
        return CliRunner().invoke(command, given, env={"COLUMNS": "200"})

    return run


def test_the_command_says_what_users_would_feel(plan: Callable[..., Result]) -> None:
    result = plan("--parallel", "4", "--simulate", "burst:12", "--slo", "0.5/0.05")
    assert result.exit_code == 0, result.output
    assert "Simulated: burst:12, 12 requests" in result.stdout
    assert "first token within 500 ms, each after within 50 ms, for 99%" in result.stdout
    assert "predicted, not measured" in result.stdout


def test_the_document_has_a_simulation_only_where_one_was_asked_for(plan: Callable[..., Result]) -> None:
    assert "simulation" not in json.loads(plan("--json").stdout)
    found = json.loads(plan("--json", "--simulate", "burst:3", "--lengths", "10/5", "--seed", "7").stdout)["simulation"]
    assert found["requests"] == 3
    assert found["ttft"]["n"] == 3
    assert found["limits"]["max_num_seqs"] == 1
    assert found["throughput"] == pytest.approx(15 / found["seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--lengths", "9"), "--lengths takes two values"),
        (("--lengths", "9/x"), "--lengths takes tokens"),
        (("--lengths", "9-5/3"), "--lengths takes tokens"),
        (("--slo", "1"), "--slo takes two values"),
        (("--slo", "a/b"), "--slo takes two numbers"),
    ],
)
def test_wrong_usage_is_said(plan: Callable[..., Result], arguments: tuple[str, ...], message: str) -> None:
    result = plan("--simulate", "burst:3", *arguments)
    assert result.exit_code == 2
    assert message in result.output

"""`velollm optimize`: chosen, planned, written, applied and read back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from velollm_core.commands.optimize import command
from velollm_core.config import state_dir
from velollm_core.errors import BackendUnreachable, VeloError
from velollm_core.testing import install_plugin, run_cli
from velollm_core.testing.test_model import write_test_model

PLUGIN = """
import json, os
from pathlib import Path
from velollm_core.backends.setting import Plan, Setting
from velollm_core.backends.status import Status
from velollm_core.hookspecs import hookimpl
from velollm_core.models.load import LoadSettings

RUNNING = os.environ.get("FAKE_STATE") == "running"

class Fake:
    name = "fake"
    suffixes = (".sh", ".env")
    async def status(self):
        if os.environ.get("FAKE_STATE") == "absent":
            return Status(reachable=False, reason="fake is not there")
        return Status(reachable=True, running=os.environ.get("FAKE_STATE") == "running", version="1.2")
    def stream(self, request):
        raise NotImplementedError
    async def close(self):
        pass
    def emit(self, plan, suffix):
        return f"{suffix} " + " ".join(f"{each.name}={each.value}" for each in plan.settings) + "\\n"
    async def apply(self, model, settings):
        self.applied = {each.name: each.value for each in settings}
    async def read_back(self):
        return {**self.applied, **json.loads(os.environ.get("FAKE_FOUND", "{}"))}
    async def roll_back(self):
        self.applied = {}

@hookimpl
def detect(hardware):
    return [Fake()]

@hookimpl
def optimize(backend, model, hardware, workload):
    if os.environ.get("FAKE_STATE") == "silent":
        return None
    tokens = workload.context or 1024
    settings = (
        Setting("context", tokens, "flag", "asked for by the workload", "rule"),
        Setting("threads", hardware.cpu.usable_cores, "flag", "physical cores", "rule"),
    )
    load = LoadSettings(tokens * workload.concurrency, parallel=workload.concurrency)
    return Plan("fake", model.name, settings, load=load)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the test model; a plugin that plans, writes and applies is installed."""
    folder = install_plugin(tmp_path / "site", "fake", PLUGIN)
    write_test_model(tmp_path / "model.gguf")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("VELOLLM_ONLY_PLUGINS", "fake")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def optimize(fake: Path, machine_path):
    """Run the command in this process for the recorded server."""

    def run(*arguments: str, here: bool = False, state: str = "", found: str = "{}") -> Result:
        place = () if here else ("--hardware", str(machine_path("cpu")))
        return CliRunner().invoke(
            command, [*place, *arguments], env={"FAKE_STATE": state, "FAKE_FOUND": found, "COLUMNS": "160"}
        )

    return run


def document(result: Result) -> dict:
    assert result.exit_code == 0, result.output + repr(result.exception)
    return json.loads(result.stdout)


def test_settings_come_with_value_place_reason_and_evidence(optimize) -> None:
    result = optimize("--model", "model.gguf", "--dry-run")
    assert result.exit_code == 0
    for words in (
        "Backend: fake 1.2 (the only one that can be used here)",
        "Model: model.gguf (asked for)",
        "physical cores",
        "flag",
        "rule",
        "24",
        "It fits in what is free now.",
        "Decode at 1024 tokens",
        "KV cache",
    ):
        assert words in result.stdout, words


def test_the_plan_is_completed_with_memory_fit_and_prediction(optimize) -> None:
    found = document(optimize("--model", "model.gguf", "--context", "700", "--parallel", "2", "--json"))
    assert found["schema"] == "velollm.optimize/1"
    assert found["backend"]["name"] == "fake"
    assert found["model"] == {"name": "model.gguf", "origin": "asked", "reason": "asked for"}
    plan = found["plan"]
    assert plan["settings"][0]["value"] == 700
    assert plan["memory"]["sequences"] == 2
    assert plan["memory"]["context_per_sequence"] == 768
    assert plan["fits"] is True
    assert plan["prediction"]["depth"] == 768
    assert found["applied"] is None


def test_the_backend_writes_its_own_formats_and_the_core_json(optimize, fake: Path) -> None:
    for name, text in (("plan.sh", ".sh context=1024"), ("plan.env", ".env context="), ("plan", ".sh context=")):
        result = optimize("--model", "model.gguf", "-o", name)
        assert result.exit_code == 0
        assert result.stdout.endswith(f"Wrote {name}.\n")
        assert (fake / name).read_text().startswith(text)
    assert optimize("--model", "model.gguf", "-o", "plan.json").exit_code == 0
    assert json.loads((fake / "plan.json").read_text())["schema"] == "velollm.optimize/1"
    result = optimize("--model", "model.gguf", "-o", "plan.yaml")
    assert result.exit_code == 2
    assert "fake writes .sh, .env, .json" in result.stderr


def test_a_plugin_that_plans_nothing_is_an_error(optimize) -> None:
    result = optimize("--model", "model.gguf", state="silent")
    assert isinstance(result.exception, VeloError)
    assert "plans no settings" in str(result.exception)


def test_a_backend_asked_for_must_answer(optimize) -> None:
    result = optimize("--backend", "fake", "--model", "model.gguf", state="absent")
    assert isinstance(result.exception, BackendUnreachable)
    result = optimize("--backend", "other", "--model", "model.gguf")
    assert "here are: fake" in str(result.exception)


def test_without_a_backend_there_is_advice(optimize, fake: Path) -> None:
    result = optimize("--model", "model.gguf", "--context", "512", state="absent")
    assert result.exit_code == 0
    assert "fake: fake is not there" in result.stdout
    assert "--ctx-size" in result.stdout
    assert "start it so: llama-server -m model.gguf -c 512" in result.stdout
    found = document(optimize("--model", "model.gguf", "--json", state="absent"))
    assert found["backend"] is None
    assert optimize("--model", "model.gguf", "-o", "start.sh", state="absent").exit_code == 0
    assert (fake / "start.sh").read_text().startswith("#!/bin/sh\nexec llama-server -m model.gguf")
    result = optimize("--model", "model.gguf", "--apply", here=True, state="absent")
    assert "nothing to apply the settings to" in str(result.exception)


def test_what_is_applied_is_read_back_and_remembered(optimize) -> None:
    result = optimize("--model", "model.gguf", "--apply", here=True)
    assert result.exit_code == 0, result.exception
    assert "Applied, and read back." in result.stdout
    kept = json.loads((state_dir() / "history.jsonl").read_text())
    assert (kept["backend"], kept["ok"], kept["settings"][0]["verdict"]) == ("fake", True, "equal")


def test_a_difference_is_rolled_back_and_an_error(optimize) -> None:
    result = optimize("--model", "model.gguf", "--apply", "--json", here=True, found='{"context": 256}')
    assert isinstance(result.exception, VeloError)
    applied = json.loads(result.stdout)["applied"]
    assert applied["rolled_back"] is True
    assert applied["settings"][0] == {"name": "context", "wanted": 1024, "found": 256, "verdict": "different"}


def test_nothing_is_applied_on_a_dry_run(optimize) -> None:
    found = document(optimize("--model", "model.gguf", "--apply", "--dry-run", "--json", here=True))
    assert found["applied"] is None
    assert not (state_dir() / "history.jsonl").exists()


def test_a_server_that_runs_is_not_reloaded_unasked(optimize) -> None:
    result = optimize("--model", "model.gguf", "--apply", here=True, state="running")
    assert "--yes allows it" in str(result.exception)
    assert optimize("--model", "model.gguf", "--apply", "--yes", here=True, state="running").exit_code == 0


@pytest.mark.parametrize(
    "arguments", [("--apply", "--hardware", "FILE"), ("--url", "http://127.0.0.1:1"), ("--parallel", "0")]
)
def test_wrong_usage_is_exit_code_two(optimize, machine_path, arguments: tuple[str, ...]) -> None:
    given = [str(machine_path("cpu")) if each == "FILE" else each for each in arguments]
    assert optimize(*given, here=True).exit_code == 2


def test_a_bare_machine_gets_advice_for_the_test_model(tmp_path: Path) -> None:
    nowhere = {"VELOLLM_ONLY_PLUGINS": "none", "HOME": str(tmp_path), "OLLAMA_MODELS": str(tmp_path)}
    outcome = run_cli("optimize", "--dry-run", folder=tmp_path, environment=nowhere)
    assert outcome.code == 0, outcome.stderr
    assert "VeloLLM's own test model" in outcome.stdout


def test_the_document_is_the_golden_one(optimize) -> None:
    found = document(optimize("--model", "model.gguf", "--context", "1024", "--json"))
    golden = Path(__file__).parent / "optimize.json"
    if "WRITE_GOLDEN" in os.environ:
        golden.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(golden.read_text())

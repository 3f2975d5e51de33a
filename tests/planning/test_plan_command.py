"""`velollm plan` as its users run it."""

from __future__ import annotations

import json
import os
import stat
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from velollm_core.commands.plan import command
from velollm_core.errors import VeloError
from velollm_core.testing import run_cli
from velollm_core.testing.test_model import write_test_model

GOLDEN = Path(__file__).parent / "plan.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the test model."""
    path = tmp_path_factory.mktemp("plan")
    write_test_model(path / "model.gguf")
    return path


@pytest.fixture
def plan(folder: Path, machine_path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in this process, on the recorded server, by formula alone."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("VELOLLM_ONLY_PLUGINS", "none")

    def run(*arguments: str, machine: str = "cpu") -> Result:
        given = ["model.gguf", "--hardware", str(machine_path(machine)), *arguments]
        return CliRunner().invoke(command, given, env={"COLUMNS": "200"})

    return run


def found(result: Result) -> dict:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_document_is_the_golden_one(plan) -> None:
    document = found(plan("--context", "1024", "--json"))
    if "WRITE_GOLDEN" in os.environ:
        GOLDEN.write_text(json.dumps(document, indent=1) + "\n")
    assert document == json.loads(GOLDEN.read_text())


def test_the_document_keeps_to_the_grammar(plan) -> None:
    document = found(plan("--json"))
    assert document["schema"] == "velollm.plan/1"
    assert document["pick"]["context"] == 2048
    host = document["pick"]["memory"]["devices"][0]
    assert (host["weights"]["basis"], host["weights"]["interval"]) == ("formula", None)
    assert isinstance(host["kv"]["value"], int)
    assert host["compute"]["interval"]["low"] <= host["compute"]["value"]
    assert document["pick"]["fit"]["verdict"] == "yes"
    assert document["pick"]["full"]["decode"]["basis"] == "predicted"
    assert document["alternatives"]["picks"][0]["load"] == document["pick"]["load"]
    assert document["alternatives"]["closest"] is None


def test_people_get_tables_with_sources_reasons_and_the_command(plan) -> None:
    result = plan("--context", "1024")
    assert result.exit_code == 0
    for words in (
        "VeloLLM test model",
        "KV cache",
        "formula",
        "nominal",
        "fits",
        "main memory available now",
        "GB/s measured",
        "as asked for",
        "Placement: layers 0–3 in main memory",
        "Start: llama-server -m model.gguf -c 1024 -np 1 -ngl 0",
    ):
        assert words in result.stdout, words


def test_context_is_a_requests_and_the_total_is_printed_too(plan) -> None:
    memory = found(plan("--context", "512", "--parallel", "3", "--json"))["pick"]["memory"]
    assert (memory["context"], memory["context_per_sequence"], memory["sequences"]) == (1536, 512, 3)
    pick = found(plan("--total-context", "1536", "--parallel", "3", "--kv-unified", "--json"))["pick"]
    assert (pick["context"], pick["memory"]["context"]) == (1536, 1536)
    assert "--kv-unified" in pick["command"]


def test_every_load_option_reaches_the_settings_and_the_command(plan) -> None:
    options = "--kv-type-k q8_0 --kv-type-v q4_0 --flash-attn on --batch 256 --ubatch 128 --swa-full --no-kv-unified"
    pick = found(plan("--context", "512", *options.split(), "--json"))["pick"]
    load = pick["load"]
    assert (load["type_k"], load["type_v"], load["flash_attn"]) == ("q8_0", "q4_0", "on")
    assert (load["batch"], load["ubatch"], load["swa_full"], load["kv_unified"]) == (256, 128, True, False)
    assert pick["command"] == (
        "llama-server -m model.gguf -c 512 -np 1 --no-kv-unified -ctk q8_0 -ctv q4_0 -fa on "
        "-b 256 -ub 128 --swa-full -ngl 0 --fit off"
    )


def test_layers_go_to_the_gpu_unless_said_otherwise(plan) -> None:
    pick = found(plan("--json", machine="rtx4090"))["pick"]
    assert pick["load"]["gpu_layers"] == 5
    assert [device["device"] for device in pick["memory"]["devices"]] == ["host", "gpu0"]
    assert found(plan("--gpu-layers", "0", "--json", machine="rtx4090"))["pick"]["load"]["gpu_layers"] == 0
    document = found(plan("--gpu-layers", "3", "--json"))
    assert any("there is no GPU here" in note for note in document["notes"])


def test_files_by_their_suffix(plan, tmp_path: Path) -> None:
    script = tmp_path / "start.sh"
    result = plan("--context", "512", "-o", str(script))
    assert result.stdout == f"Wrote {script}.\n"
    assert script.read_text() == "#!/bin/sh\nexec llama-server -m model.gguf -c 512 -np 1 -ngl 0 --fit off\n"
    for name in ("plan.json", "plan"):
        assert plan("--context", "512", "-o", str(tmp_path / name)).exit_code == 0
        assert json.loads((tmp_path / name).read_text())["schema"] == "velollm.plan/1"
    assert plan("-o", "plan.yaml").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--context", "512", "--total-context", "512"),
        ("--kv-type", "q8_0", "--kv-type-k", "f16"),
        ("--context", "0"),
        ("--parallel", "0"),
        ("--kv-type", "q9_9"),
        ("--flash-attn", "maybe"),
        ("--basis", "guess"),
        ("--min-decode", "-1"),
    ],
)
def test_wrong_usage_is_exit_code_two(plan, arguments: tuple[str, ...]) -> None:
    assert plan(*arguments).exit_code == 2


def test_floors_and_what_is_below_them(plan) -> None:
    document = found(plan("--min-decode", "1000000", "--json"))
    assert document["alternatives"]["picks"] == []
    assert "below the floor of 1e+06" in document["alternatives"]["why"]
    text = plan("--min-context", "100000").stdout
    assert "Nothing fits; the closest is" in text
    assert "below the floor of 100000 tokens" in text


def test_floors_of_the_configuration(plan, own_places: Path) -> None:
    config = own_places / "config" / "velollm"
    config.mkdir(parents=True)
    (config / "config.toml").write_text("[floors]\ncontext = 100000\n")
    assert found(plan("--json"))["alternatives"]["picks"] == []


def test_what_the_engine_refuses_is_refused_with_its_reason(plan) -> None:
    result = plan("--kv-type-v", "q8_0", "--flash-attn", "off")
    assert isinstance(result.exception, VeloError)
    assert "flash" in str(result.exception).lower()


def bad_files(folder: Path) -> dict[str, str]:
    whole = (folder / "model.gguf").read_bytes()
    (folder / "cut.gguf").write_bytes(whole[:300])
    (folder / "text.gguf").write_text("this is no model\n" * 100)
    (folder / "empty.gguf").write_bytes(b"")
    (folder / "locked.gguf").write_bytes(whole)
    return {"cut.gguf": "", "text.gguf": "", "empty.gguf": "", "absent.gguf": "no such file"}


def test_a_bad_file_is_one_clear_line(folder: Path, machine_path) -> None:
    for name, words in bad_files(folder).items():
        outcome = run_cli("plan", name, "--hardware", machine_path("cpu"), "--basis", "formula", folder=folder)
        assert outcome.code == 1, name
        assert outcome.stdout == ""
        assert outcome.stderr.startswith("velollm: ")
        assert outcome.stderr.count("\n") == 1
        assert name in outcome.stderr
        assert words in outcome.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(folder: Path) -> None:
    bad_files(folder)
    (folder / "locked.gguf").chmod(0)
    outcome = run_cli("plan", "locked.gguf", folder=folder)
    (folder / "locked.gguf").chmod(stat.S_IRUSR | stat.S_IWUSR)
    assert (outcome.code, outcome.stderr.count("\n")) == (1, 1)


def test_a_name_that_nobody_knows(folder: Path) -> None:
    outcome = run_cli("plan", "nobody-knows", folder=folder, environment={"VELOLLM_ONLY_PLUGINS": "none"})
    assert outcome.code == 1
    assert "nobody-knows: no such file" in outcome.stderr


def test_another_machines_file_must_be_one(folder: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"schema": "velollm.plan/1"}')
    outcome = run_cli("plan", "model.gguf", "--hardware", wrong, "--basis", "formula", folder=folder)
    assert outcome.code == 1
    assert "expected 'velollm.detect/1'" in outcome.stderr


RESOLVING = """
from velollm_core.hookspecs import hookimpl
from velollm_core.backends.status import Status
from velollm_core.models.files import read_model
from pathlib import Path

class Named:
    name = "named"
    async def status(self):
        return Status(reachable=True, running=True, models=("tiny:latest",))
    def stream(self, request):
        raise NotImplementedError
    async def close(self):
        pass
    async def resolve(self, model):
        return read_model(Path("model.gguf"))

@hookimpl
def detect(hardware):
    return [Named()]
"""


def test_a_name_that_a_running_backend_lists(folder: Path, tmp_path: Path) -> None:
    from velollm_core.testing import install_plugin

    plugin = install_plugin(tmp_path, "named", RESOLVING)
    here = {"VELOLLM_ONLY_PLUGINS": "named"}
    outcome = run_cli("plan", "tiny", "--json", folder=folder, plugins=[plugin], environment=here)
    assert outcome.code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["model"]["architecture"] == "llama"
    outcome = run_cli("plan", "huge", folder=folder, plugins=[plugin], environment=here)
    assert outcome.code == 1
    assert "and named lists no such model" in outcome.stderr


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A Hugging Face directory without its weights."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 256,
        "intermediate_size": 768,
        "max_position_embeddings": 2048,
        "num_attention_heads": 4,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "torch_dtype": "bfloat16",
        "vocab_size": 1000,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_hugging_face_directory_has_a_plan_but_no_command(hub_folder: Path, machine_path) -> None:
    outcome = run_cli("plan", hub_folder, "--json", "--hardware", machine_path("cpu"), "--context", "512")
    assert outcome.code == 0, outcome.stderr
    pick = json.loads(outcome.stdout)["pick"]
    assert pick["command"] is None
    assert pick["memory"]["devices"][0]["kv"]["value"] == 4 * 2 * 2 * 64 * 2 * 512
    outcome = run_cli("plan", hub_folder, "-o", hub_folder / "start.sh", "--hardware", machine_path("cpu"))
    assert outcome.code == 1
    assert "llama-server cannot load this as it is" in outcome.stderr


def test_a_url_is_planned_from_its_header(folder: Path, machine_path, tmp_path: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/model.gguf"
        outcome = run_cli("plan", url, "--json", "--hardware", machine_path("cpu"), home=tmp_path)
        server.shutdown()
    assert outcome.code == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["model"]["source"] == url
    assert document["pick"]["command"].startswith(f"llama-server -mu {url} ")

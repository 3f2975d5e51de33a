"""`velollm ollama …` as its users run it, against the fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from velollm_ollama import gather
from velollm_ollama.cli import command
from velollm_ollama.process import ServerProcess
from velollm_ollama.readers import parse_settings
from velollm_ollama.testing import FakeOllama

from velollm_core.errors import BackendError, BackendUnreachable, VeloError


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    """A server that cannot be told from this machine's own."""
    for place in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))
    monkeypatch.setattr(gather, "find_server", lambda _port: None)
    monkeypatch.setattr(gather, "find_log", lambda: None)
    with FakeOllama(environment={"OLLAMA_NUM_PARALLEL": "2x", "OLLAMA_FLASH_ATTENTION": "off"}) as server:
        monkeypatch.setenv("VELOLLM_OLLAMA_URL", server.url)
        yield server


@pytest.fixture
def readable(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> FakeOllama:
    """The same, its process open to us."""
    monkeypatch.setattr(gather, "find_server", lambda _port: ServerProcess(7, fake.config.typed))
    return fake


def run(*words: object) -> Result:
    result = CliRunner().invoke(command, [str(word) for word in words], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_show_reads_the_process(readable: FakeOllama) -> None:
    shown = run("config", "show").output
    assert "OLLAMA_NUM_PARALLEL" in shown
    assert "process 7" in shown
    assert "written '2x'" in shown
    assert "error: OLLAMA_FLASH_ATTENTION=off: Ollama takes 'off' for true; write 1 or 0" in shown


def test_show_as_a_document(readable: FakeOllama) -> None:
    found = json.loads(run("config", "show", "--json").output)
    assert found["schema"] == "velollm.ollama.config/1"
    assert found["version"] == "0.33.0"
    settings = {entry["name"]: entry for entry in found["settings"]}
    assert settings["OLLAMA_FLASH_ATTENTION"]["value"] == "on"
    assert {finding["severity"] for finding in found["findings"]} == {"error"}


def test_show_from_a_log_alone(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOLLM_OLLAMA_URL", "http://127.0.0.1:9")
    shown = run("config", "show", "--log", recordings / "env_fa_off_word_kv_q8_par4" / "server.log").output
    assert "Q8_0" in shown
    assert "from its log alone" in shown
    assert "server does not answer" in shown


def test_show_says_what_it_could_not_read(fake: FakeOllama) -> None:
    shown = run("config", "show").output
    assert "note: no `ollama serve` of this machine listens there" in shown
    assert "default of 0.33.0" in shown


def test_without_a_server_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VELOLLM_OLLAMA_URL", "http://127.0.0.1:9")
    for words in (("config", "show"), ("config", "export"), ("config", "lint"), ("models",), ("tune", "tiny")):
        with pytest.raises(BackendUnreachable, match="does not answer") as caught:
            run(*words)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["sh", "env", "systemd", "launchctl", "powershell", "docker", "compose"])
def test_export_in_every_form(readable: FakeOllama, form: str) -> None:
    readable.start_again({"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_KEEP_ALIVE": "30m"})
    written = run("config", "export", "--as", form).output
    assert "OLLAMA_NUM_PARALLEL" in written
    assert "30m" in written


def test_export_refuses_what_would_be_misread(readable: FakeOllama) -> None:
    with pytest.raises(VeloError, match=r"not written: .*write 1 or 0"):
        run("config", "export")


def test_export_needs_something_to_read(fake: FakeOllama) -> None:
    with pytest.raises(VeloError, match="cannot be read from here"):
        run("config", "export")


def test_files_become_other_files(tmp_path: Path) -> None:
    first, second, out = tmp_path / "a.env", tmp_path / "b.conf", tmp_path / "out.service"
    first.write_text("OLLAMA_NUM_PARALLEL=4\nOLLAMA_DEBUG=1\n", encoding="utf-8")
    second.write_text('[Service]\nEnvironment="OLLAMA_NUM_PARALLEL=2"\n', encoding="utf-8")
    assert "Wrote 2 settings" in run("config", "export", first, second, "-o", out).output
    assert parse_settings(out.read_text(encoding="utf-8"), ".service") == {
        "OLLAMA_DEBUG": "1",
        "OLLAMA_NUM_PARALLEL": "2",
    }


def test_merge_lays_files_over_the_running_server(readable: FakeOllama, tmp_path: Path) -> None:
    readable.start_again({"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_DEBUG": "1"})
    over = tmp_path / "over.env"
    over.write_text("OLLAMA_NUM_PARALLEL=1\n", encoding="utf-8")
    merged = parse_settings(run("config", "merge", over).output, ".sh")
    assert merged == {"OLLAMA_DEBUG": "1", "OLLAMA_NUM_PARALLEL": "1"}


def test_lint_judges_files_for_a_version(tmp_path: Path) -> None:
    file = tmp_path / "config.sh"
    file.write_text("export OLLAMA_NUM_GPU=999\nexport OLLAMA_NEW_ENGINE=1\n", encoding="utf-8")
    modern = run("config", "lint", file, "--for", "0.33.0")
    assert modern.exit_code == 1
    assert "num_gpu is a parameter" in modern.output
    assert "gone since 0.30.0" in modern.output
    file.write_text("export OLLAMA_NEW_ENGINE=1\n", encoding="utf-8")
    old = run("config", "lint", file, "--for", "0.24.0")
    assert (old.exit_code, old.output.strip()) == (0, "No setting is misread, ignored or broken.")
    assert run("config", "lint", file, "--for", "latest").exit_code == 2
    found = json.loads(run("config", "lint", file, "--json").output)
    assert [entry["severity"] for entry in found["findings"]] == ["warning"]


def test_lint_judges_the_running_server(readable: FakeOllama) -> None:
    result = run("config", "lint")
    assert result.exit_code == 1
    assert "OLLAMA_NUM_PARALLEL=2x" in result.output


def test_models_and_what_breaks_one(fake: FakeOllama) -> None:
    fake.models["bad:latest"] = fake.models["tiny:latest"]
    fake.models["tiny:latest"].parameters = {"num_ctx": "many"}
    shown = run("models").output
    assert "tiny:latest" in shown
    assert "error: tiny:latest: parameters refused: num_ctx takes a whole number, found 'many'" in shown
    found = json.loads(run("models", "--json").output)
    assert found["schema"] == "velollm.ollama.models/1"
    assert found["models"][0]["parameters"] == {"num_ctx": "many"}


def test_tune_plans_and_changes_nothing(fake: FakeOllama, tmp_path: Path) -> None:
    script = tmp_path / "config.sh"
    shown = run("tune", "tiny", "--context", 1024, "-o", script).output
    assert "num_ctx" in shown
    assert "PARAMETER num_ctx 1024" in script.read_text(encoding="utf-8")
    found = json.loads(run("tune", "tiny", "--context", 1024, "--json", "--apply", "--dry-run").output)
    assert found["plan"]["settings"][0]["value"] == 1024
    assert found["outcomes"] == []
    assert sorted(fake.models) == ["tiny:latest"]


def test_tune_applies_reads_back_and_undoes(fake: FakeOllama) -> None:
    found = json.loads(run("tune", "tiny", "--context", 1024, "--apply", "--json").output)
    states = {entry["name"]: entry["state"] for entry in found["outcomes"]}
    assert states == {"num_ctx": "applied", "OLLAMA_NUM_PARALLEL": "not read back"}
    assert "tiny:velo" in fake.models
    assert "Took back tiny:velo." in run("tune", "tiny", "--undo").output
    assert "Nothing was applied" in run("tune", "tiny", "--undo").output


def test_tune_applies_what_it_may_and_says_the_rest(readable: FakeOllama) -> None:
    readable.start_again({})
    with pytest.raises(VeloError, match="must be restarted for OLLAMA_NUM_PARALLEL=2"):
        run("tune", "tiny", "--context", 512, "--parallel", 2, "--apply")
    assert readable.models["tiny:velo"].parameters == {"num_ctx": 512}


def test_an_unknown_model_is_one_line(fake: FakeOllama) -> None:
    with pytest.raises(BackendError, match="ollama pull nope"):
        run("tune", "nope")


def test_every_command_shows_an_example() -> None:
    def leaves(group: click.Group, *path: str) -> Iterator[tuple[str, click.Command]]:
        for name, each in group.commands.items():
            if isinstance(each, click.Group):
                yield from leaves(each, *path, name)
            else:
                yield " ".join((*path, name)), each

    found = dict(leaves(command, "ollama"))
    assert sorted(found) == [
        "ollama config export",
        "ollama config lint",
        "ollama config merge",
        "ollama config show",
        "ollama models",
        "ollama tune",
    ]
    for path, each in found.items():
        assert (each.epilog or "").startswith(f"Example: velollm {path}")

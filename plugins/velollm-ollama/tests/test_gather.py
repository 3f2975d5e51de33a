"""Evidence gathered from a running server, its process, its child, and its log."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve
from velollm_ollama import gather as gathering
from velollm_ollama import log_source
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.effective import effective
from velollm_ollama.evidence import ChildReport, Evidence
from velollm_ollama.gather import gather
from velollm_ollama.process import ChildProcess, ServerProcess
from velollm_ollama.testing import FakeOllama

from velollm_core.errors import VeloError
from velollm_core.testing import FakeServer, document

PROPS = {"total_slots": 2, "default_generation_settings": {"n_ctx": 2048}, "build_info": "b1-0c1e570"}
SLOTS = [{"id": 0, "is_processing": True}, {"id": 1, "is_processing": False}]


def look(url: str, log: str | None = None) -> Evidence:
    async def once() -> Evidence:
        backend = OllamaBackend(url)
        try:
            await backend.status()
            return await gather(backend, log)
        finally:
            await backend.close()

    return asyncio.run(once())


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is looked at."""
    monkeypatch.setattr(gathering, "find_server", lambda _port: None)
    monkeypatch.setattr(gathering, "find_log", lambda: None)


@pytest.mark.usefixtures("alone")
def test_a_server_whose_process_is_hidden() -> None:
    with FakeOllama() as fake:
        found = look(fake.url)
    assert str(found.version) == "0.33.0"
    assert found.process is None
    assert found.log is None
    assert len(found.notes) == 2


@pytest.mark.usefixtures("alone")
def test_a_child_is_asked_on_its_own_port(
    child_report: Callable[[str], ChildReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = child_report("env_llama_arg/loaded.child.txt")
    with FakeOllama() as fake, FakeServer({"GET /props": document(PROPS), "GET /slots": document(SLOTS)}) as child:
        port = int(child.url.rsplit(":", 1)[-1])
        process = ChildProcess(8, evolve(report.child, port=port), report.environment)
        monkeypatch.setattr(gathering, "find_server", lambda _port: ServerProcess(7, report.environment, (process,)))
        found = look(fake.url)
    [answered] = found.children
    assert (answered.slots, answered.context_per_slot, answered.busy, answered.build) == (2, 2048, 1, "b1-0c1e570")
    assert found.process is not None
    assert found.process.settings["OLLAMA_NUM_PARALLEL"] == "2"
    assert found.notes == ("no start of this server in any log found: name one with --log, or pipe it to --log -",)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("props", [document([1]), document({}, 500)])
def test_a_child_that_says_nothing_is_known_by_its_command(
    child_report: Callable[[str], ChildReport], monkeypatch: pytest.MonkeyPatch, props: object
) -> None:
    report = child_report("env_quirks/loaded.child.txt")
    routes = {"GET /props": props, "GET /slots": document({"error": "off"}, 501)}
    with FakeOllama() as fake, FakeServer(routes) as child:  # type: ignore[arg-type]
        port = int(child.url.rsplit(":", 1)[-1])
        process = ChildProcess(8, evolve(report.child, port=port))
        monkeypatch.setattr(gathering, "find_server", lambda _port: ServerProcess(7, None, (process,)))
        found = look(fake.url)
    assert found.children[0].slots is None
    assert found.children[0].child.context == 2048
    assert any("another user" in note for note in found.notes)


@pytest.mark.usefixtures("alone")
def test_a_log_that_was_named_counts_and_one_that_was_found_only_where_it_is_this_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeOllama(environment={"OLLAMA_NUM_PARALLEL": "3"}) as fake:
        (tmp_path / "server.log").write_text(fake.log(), encoding="utf-8")
        named = look(fake.url, str(tmp_path / "server.log"))
        monkeypatch.setattr(gathering, "find_log", lambda: (fake.log(), "journal"))
        found = look(fake.url)
        monkeypatch.setattr(gathering, "find_log", lambda: (fake.log().replace(fake.url[7:], "1.2.3.4:5"), "journal"))
        other = look(fake.url)
    for evidence in (named, found):
        entry = effective(evidence).get("OLLAMA_NUM_PARALLEL")
        assert entry is not None
        assert entry.value == "3"
    assert other.log is None


def test_a_log_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(VeloError, match="cannot be read"):
        log_source.read_log_file(str(tmp_path / "none"))


def test_where_logs_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert log_source.find_log() is None
    (tmp_path / "Ollama").mkdir()
    (tmp_path / "Ollama" / "server.log").write_text("hello", encoding="utf-8")
    assert log_source.find_log() == ("hello", str(tmp_path / "Ollama" / "server.log"))


def test_the_journal_of_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr("shutil.which", lambda name: name)
    answers = [
        subprocess.CompletedProcess([], 0, stdout="a start\n"),
        subprocess.CompletedProcess([], 0, stdout=" "),
        subprocess.CompletedProcess([], 1, stdout="no"),
    ]
    monkeypatch.setattr("subprocess.run", lambda *_arguments, **_options: answers.pop(0))
    assert log_source.find_log() == ("a start\n", "journal of ollama.service")
    assert log_source.find_log() is None
    assert log_source.find_log() is None


def test_a_server_on_another_machine_is_not_looked_for() -> None:
    backend = OllamaBackend("http://192.0.2.1:11434")
    backend.loaded = _nothing_loaded  # type: ignore[method-assign]
    found = asyncio.run(gather(backend))
    assert found.notes == ("the server is on another machine: its environment and log cannot be read from here",)
    assert json.dumps(found.notes)


async def _nothing_loaded() -> tuple[()]:
    return ()

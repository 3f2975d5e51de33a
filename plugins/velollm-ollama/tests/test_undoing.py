"""The record as changes that `velollm undo` lists and takes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from velollm_ollama import gather
from velollm_ollama.applied import Applied, load_applied, save_applied
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.process import ServerProcess
from velollm_ollama.testing import FakeOllama

from velollm_core.backends.backend import Undoes
from velollm_core.backends.setting import Setting
from velollm_core.errors import BackendError, VeloError
from velollm_core.testing import run_cli, unused_url


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OllamaBackend:
    """A backend whose server is not there; its record is empty."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return OllamaBackend(unused_url())


def undo(backend: OllamaBackend, number: int) -> None:
    async def take_back() -> None:
        try:
            await backend.undo(backend.changes()[number])
        finally:
            await backend.close()

    asyncio.run(take_back())


def test_what_is_recorded_is_listed_variables_first(backend: OllamaBackend) -> None:
    assert isinstance(backend, Undoes)
    assert backend.changes() == ()
    save_applied(Applied(backend.url, "tiny", "tiny-velollm", existed=True))
    save_applied(Applied(backend.url, channel="manual", environment={"OLLAMA_NUM_PARALLEL": "2"}))
    save_applied(Applied("http://elsewhere", "tiny", "tiny-velollm"))
    variables, model = backend.changes()
    assert variables.what == "variables OLLAMA_NUM_PARALLEL=2"
    assert not variables.restarts
    assert model.what.startswith("derived model tiny-velollm of tiny; the model that had the name")


def test_a_change_without_its_server_stays_on_record(backend: OllamaBackend) -> None:
    save_applied(Applied(backend.url, "tiny", "tiny-velollm"))
    with pytest.raises(VeloError):
        undo(backend, 0)
    assert load_applied(backend.url)


def test_variables_of_a_manual_server_are_forgotten_alone(backend: OllamaBackend) -> None:
    save_applied(Applied(backend.url, channel="manual", environment={"OLLAMA_NUM_PARALLEL": "2"}))
    save_applied(Applied(backend.url, "tiny", "tiny-velollm"))
    gone = backend.changes()[0]
    undo(backend, 0)
    assert [change.key for change in backend.changes()] == ["tiny"]
    with pytest.raises(BackendError, match="not on record"):
        asyncio.run(backend.undo(gone))


def test_another_run_lists_and_takes_back_what_one_applied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    with FakeOllama() as fake:
        monkeypatch.setattr(gather, "find_server", lambda _port: ServerProcess(7, fake.config.typed))
        monkeypatch.setattr(gather, "find_log", lambda: None)

        async def apply() -> None:
            backend = OllamaBackend(fake.url)
            try:
                await backend.status()
                setting = Setting("num_ctx", 1024, "model", "a test", "rule")
                await backend.apply(await backend.resolve("tiny"), (setting,))
            finally:
                await backend.close()

        asyncio.run(apply())
        assert "tiny:velo" in fake.models
        environment = {"VELOLLM_OLLAMA_URL": fake.url, "VELOLLM_ONLY_PLUGINS": "ollama"}
        listed = run_cli("undo", "--dry-run", home=home, environment=environment)
        assert listed.stdout.startswith("Would take back: ollama: derived model tiny:velo of tiny"), listed.stderr
        assert "tiny:velo" in fake.models
        done = run_cli("undo", home=home, environment=environment)
        assert done.code == 0, done.stderr
        assert sorted(fake.models) == ["tiny:latest"]
        again = run_cli("undo", home=home, environment=environment)
        assert again.stdout == "Nothing that VeloLLM applied is in force here.\n"

"""Settings applied, read back, and taken back; a failure at any point leaves what was there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from velollm_ollama import application, gather
from velollm_ollama.applied import Applied, load_applied, save_applied
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.channel import Channel
from velollm_ollama.derived import modelfile, names_of
from velollm_ollama.process import ServerProcess
from velollm_ollama.readers import parse_settings
from velollm_ollama.testing import FakeOllama, tiny_model

from velollm_core.backends.request import Request, SamplingParams
from velollm_core.backends.setting import Setting, Value, Where
from velollm_core.errors import BackendError, VeloError
from velollm_core.models.spec import ModelSpec
from velollm_core.testing import document

T = TypeVar("T")


def setting(name: str, value: Value, where: Where) -> Setting:
    return Setting(name, value, where, "a test", "rule")


CONTEXT = setting("num_ctx", 1024, "model")
THREADS = setting("num_thread", 1, "model")
SLOTS = setting("OLLAMA_NUM_PARALLEL", 2, "env")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOllama]:
    """A server whose process can be read, as one of this user can; nothing of this machine is touched."""
    for place in ("STATE", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"XDG_{place}_HOME", str(tmp_path / place))
    with FakeOllama() as server:
        monkeypatch.setattr(gather, "find_server", lambda _port: ServerProcess(7, server.config.typed))
        monkeypatch.setattr(gather, "find_log", lambda: None)
        yield server


@pytest.fixture
def service(fake: FakeOllama, tmp_path: Path) -> Channel:
    """A service manager that starts the fake again with what the drop-in holds."""
    path = tmp_path / "ollama.service.d" / "velollm.conf"

    def run(command: Sequence[str]) -> str:
        if list(command) == ["systemctl", "restart", "ollama"]:
            fake.start_again(parse_settings(path.read_text(encoding="utf-8"), ".conf") if path.exists() else {})
        return ""

    return Channel("systemd", path, run)


def with_backend(fake: FakeOllama, use: Callable[[OllamaBackend, ModelSpec], Awaitable[T]]) -> T:
    async def once() -> T:
        backend = OllamaBackend(fake.url)
        try:
            await backend.status()
            return await use(backend, await backend.resolve("tiny"))
        finally:
            await backend.close()

    return asyncio.run(once())


def test_parameters_become_a_derived_model_that_answers(fake: FakeOllama) -> None:
    async def use(backend: OllamaBackend, model: ModelSpec) -> None:
        await backend.apply(model, (CONTEXT, THREADS))
        loads = fake.loads
        assert (await backend.read_back())["num_ctx"] == 1024
        async for _ in backend.stream(Request("tiny", "x", sampling=SamplingParams(max_tokens=2))):
            pass
        assert fake.loads == loads, "a request to the model must reach its derived one"

    with_backend(fake, use)
    assert sorted(fake.models) == ["tiny:latest", "tiny:velo"]
    assert fake.models["tiny:velo"].parameters == {"num_ctx": 1024, "num_thread": 1}


def test_rolling_back_deletes_it_even_from_another_run(fake: FakeOllama) -> None:
    with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    assert "tiny:velo" in fake.models
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert sorted(fake.models) == ["tiny:latest"]
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert load_applied(fake.url) == {}


def test_applying_again_replaces_what_was_applied(fake: FakeOllama) -> None:
    async def use(backend: OllamaBackend, model: ModelSpec) -> None:
        await backend.apply(model, (CONTEXT,))
        await backend.apply(model, (setting("num_ctx", 512, "model"),))
        assert (await backend.read_back())["num_ctx"] == 512
        await backend.apply(model, ())

    with_backend(fake, use)
    assert sorted(fake.models) == ["tiny:latest"]


def test_a_model_that_had_the_name_before_gets_it_back(fake: FakeOllama) -> None:
    theirs = tiny_model()
    fake.models["tiny:velo"] = theirs
    with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    assert fake.models["tiny:velo"] is not theirs
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert fake.models == {"tiny:latest": fake.models["tiny:latest"], "tiny:velo": theirs}


@pytest.mark.parametrize("bad", [setting("num_ctx", "many", "model"), setting("no_such", 5, "model")])
def test_nonsense_never_reaches_the_server(fake: FakeOllama, bad: Setting) -> None:
    with pytest.raises(VeloError, match="parameters refused"):
        with_backend(fake, lambda backend, model: backend.apply(model, (bad,)))
    assert not fake.seen("POST /api/create")


def test_a_derived_model_that_does_not_answer_is_taken_back(fake: FakeOllama) -> None:
    fake.models["tiny:velo"] = theirs = tiny_model()
    fake.refuses = "llama-server process has terminated: exit status 1"
    with pytest.raises(BackendError, match="exit status 1"):
        with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    assert sorted(fake.models) == ["tiny:latest", "tiny:velo"]
    assert fake.models["tiny:velo"] is theirs
    assert load_applied(fake.url) == {}


def test_a_context_that_the_model_was_not_trained_for_is_not_applied(fake: FakeOllama) -> None:
    with pytest.raises(BackendError, match="loads with 2048"):
        with_backend(fake, lambda backend, model: backend.apply(model, (setting("num_ctx", 8192, "model"),)))
    assert sorted(fake.models) == ["tiny:latest"]


def test_parameters_that_were_not_kept_are_noticed(fake: FakeOllama) -> None:
    fake.routes["POST /api/create"] = document({"status": "success"})
    fake.models["tiny:velo-new"] = tiny_model()
    with pytest.raises(BackendError):
        with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    assert "tiny:velo" not in fake.models


def test_an_interrupted_run_can_be_taken_back(fake: FakeOllama) -> None:
    save_applied(Applied(fake.url, "tiny", "tiny:velo"))
    fake.models["tiny:velo-new"] = tiny_model()
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert sorted(fake.models) == ["tiny:latest"]


def test_an_interruption_while_names_change_gives_the_old_one_back(fake: FakeOllama) -> None:
    with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    ours = fake.models["tiny:velo"]
    fake.models |= {"tiny:velo-last": ours, "tiny:velo-new": tiny_model(), "tiny:velo": tiny_model()}
    with_backend(fake, lambda backend, model: backend.apply(model, (THREADS,)))
    assert fake.models["tiny:velo"].parameters == {"num_thread": 1}
    assert sorted(fake.models) == ["tiny:latest", "tiny:velo"]


def test_a_failed_apply_leaves_the_one_before_it(fake: FakeOllama) -> None:
    with_backend(fake, lambda backend, model: backend.apply(model, (CONTEXT,)))
    ours = fake.models["tiny:velo"]
    fake.refuses = "out of memory"
    with pytest.raises(BackendError, match="out of memory"):
        with_backend(fake, lambda backend, model: backend.apply(model, (THREADS,)))
    with pytest.raises(BackendError, match="must be restarted"):
        with_backend(fake, lambda backend, model: backend.apply(model, (SLOTS,)))
    assert fake.models["tiny:velo"] is ours
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert sorted(fake.models) == ["tiny:latest"]


def test_two_models_are_tuned_and_taken_back_apart(fake: FakeOllama) -> None:
    fake.models["other:latest"] = tiny_model()

    async def both(backend: OllamaBackend, model: ModelSpec) -> None:
        await backend.apply(model, (CONTEXT,))
        await backend.apply(await backend.resolve("other"), (CONTEXT,))
        await backend.roll_back()

    with_backend(fake, both)
    assert sorted(fake.models) == ["other:latest", "tiny:latest", "tiny:velo"]
    with_backend(fake, lambda backend, model: backend.roll_back())
    assert sorted(fake.models) == ["other:latest", "tiny:latest"]


def test_what_is_in_force_already_needs_no_restart(fake: FakeOllama) -> None:
    fake.start_again({"OLLAMA_NUM_PARALLEL": "2"})
    with_backend(fake, lambda backend, model: backend.apply(model, (SLOTS, CONTEXT)))
    default = (setting("OLLAMA_NUM_PARALLEL", 1, "env"),)
    fake.start_again({})
    with_backend(fake, lambda backend, model: backend.apply(model, default))


def test_a_restart_is_asked_for_with_the_exact_commands(fake: FakeOllama) -> None:
    with pytest.raises(BackendError, match="OLLAMA_NUM_PARALLEL=2 ollama serve") as caught:
        with_backend(fake, lambda backend, model: backend.apply(model, (SLOTS, CONTEXT)))
    assert caught.value.kind == "needs_restart"
    assert "\n" not in str(caught.value)
    assert sorted(fake.models) == ["tiny:latest"]


def test_a_service_is_not_restarted_without_consent(fake: FakeOllama, service: Channel) -> None:
    with pytest.raises(BackendError, match="systemctl restart ollama"):
        with_backend(fake, lambda backend, model: application.apply(
            backend, "tiny", (SLOTS,), may_restart=False, channel=service))  # fmt: skip
    assert not service.path.exists()


def test_with_consent_it_is_and_the_settings_are_read_back(fake: FakeOllama, service: Channel) -> None:
    async def use(backend: OllamaBackend, model: ModelSpec) -> None:
        await application.apply(backend, "tiny", (SLOTS, CONTEXT), may_restart=True, channel=service)
        assert (await backend.read_back())["OLLAMA_NUM_PARALLEL"] == 2
        await application.roll_back(backend, service)

    with_backend(fake, use)
    assert not service.path.exists()
    assert fake.slots == 1
    assert sorted(fake.models) == ["tiny:latest"]


def test_variables_that_are_no_longer_wanted_go(fake: FakeOllama, service: Channel) -> None:
    async def use(backend: OllamaBackend, model: ModelSpec) -> None:
        queue = setting("OLLAMA_MAX_QUEUE", 9, "env")
        await application.apply(backend, "tiny", (SLOTS, queue), may_restart=True, channel=service)
        await application.apply(backend, "tiny", (SLOTS,), may_restart=True, channel=service)
        assert parse_settings(service.path.read_text(encoding="utf-8"), ".conf") == {"OLLAMA_NUM_PARALLEL": "2"}
        await application.apply(backend, "tiny", (), may_restart=True, channel=service)

    with_backend(fake, use)
    assert not service.path.exists()
    assert load_applied(fake.url) == {}


def test_a_restart_that_does_not_help_is_undone(fake: FakeOllama, tmp_path: Path) -> None:
    path = tmp_path / "velollm.conf"
    path.write_text('[Service]\nEnvironment="OLLAMA_DEBUG=1"\n', encoding="utf-8")
    deaf = Channel("systemd", path, lambda _command: "")
    with pytest.raises(BackendError, match="OLLAMA_NUM_PARALLEL is 1 instead of 2"):
        with_backend(fake, lambda backend, model: application.apply(
            backend, "tiny", (SLOTS, CONTEXT), may_restart=True, channel=deaf))  # fmt: skip
    assert parse_settings(path.read_text(encoding="utf-8"), ".conf") == {"OLLAMA_DEBUG": "1"}
    assert sorted(fake.models) == ["tiny:latest"]


def test_a_restart_that_fails_is_undone(fake: FakeOllama, tmp_path: Path) -> None:
    path = tmp_path / "velollm.conf"

    def broken(command: Sequence[str]) -> str:
        raise VeloError(f"{' '.join(command)}: no")

    with pytest.raises(VeloError, match="daemon-reload: no"):
        with_backend(fake, lambda backend, model: application.apply(
            backend, "tiny", (SLOTS,), may_restart=True, channel=Channel("systemd", path, broken)))  # fmt: skip
    assert not path.exists()


def test_the_servers_own_keep_alive_is_given_back(fake: FakeOllama) -> None:
    fake.start_again({"OLLAMA_KEEP_ALIVE": "-1"})

    async def use(backend: OllamaBackend, model: ModelSpec) -> None:
        async for _ in backend.stream(Request("tiny", "x", sampling=SamplingParams(max_tokens=2))):
            pass
        assert fake.loaded["tiny:latest"].expires is not None

    with_backend(fake, use)
    assert fake.loaded["tiny:latest"].expires is None


def test_a_file_is_not_one_of_its_models(fake: FakeOllama) -> None:
    model = ModelSpec("m", "llama", "m.gguf", "gguf", 2048, 256, 300, ())
    with pytest.raises(BackendError, match="ollama create"):
        with_backend(fake, lambda backend, _: backend.apply(model, (CONTEXT,)))


@pytest.mark.parametrize(
    ("base", "derived"),
    [
        ("tiny", "tiny:velo"),
        ("tiny:latest", "tiny:velo"),
        ("llama3.1:8b-q4", "llama3.1:8b-q4-velo"),
        ("h:5/a/b", "h:5/a/b:velo"),
    ],
)
def test_names(base: str, derived: str) -> None:
    assert names_of(base).name == derived
    assert names_of(base).stage == f"{derived}-new"


def test_a_modelfile() -> None:
    text = modelfile("tiny", {"num_ctx": 8192, "use_mmap": False, "stop": "###"})
    assert text == 'FROM tiny\nPARAMETER num_ctx 8192\nPARAMETER use_mmap false\nPARAMETER stop "###"\n'
    with pytest.raises(VeloError, match="cannot hold"):
        modelfile("tiny", {"stop": 'a"b'})


def test_a_damaged_record_is_said(fake: FakeOllama, tmp_path: Path) -> None:
    save_applied(Applied("http://x", "a", "a:velo"))
    path = next(tmp_path.rglob("ollama-applied.json"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(VeloError, match="cannot be read"):
        load_applied("http://x")

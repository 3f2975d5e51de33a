"""What the tests of this plugin share: the test models, real servers, and one that only pretends."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from velollm_llamacpp import backend
from velollm_llamacpp.engines import EmbeddedEngine
from velollm_llamacpp.library import find_library
from velollm_llamacpp.process import ServerProcess
from velollm_llamacpp.server import free_port

from velollm_core.testing.test_model import write_test_model

HERE = Path(__file__).parent
START_SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_server_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may meet a server that happens to run here, or settings of its user."""
    for name in [each for each in os.environ if each.startswith(("LLAMA_ARG_", "VELOLLM_LLAMACPP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LLAMA_ARG_PORT", str(free_port()))
    monkeypatch.setattr(backend, "OWN_URL", f"http://127.0.0.1:{free_port()}")


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Answers and logs of a real llama-server."""
    return HERE / "recordings"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small test model."""
    return write_test_model(tmp_path_factory.mktemp("models") / "model.gguf")


@pytest.fixture(scope="session")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The draft of the small test model."""
    return write_test_model(tmp_path_factory.mktemp("models") / "draft.gguf", draft=True)


@pytest.fixture(scope="session")
def library() -> Path:
    """The embedded llama.cpp."""
    path = find_library()
    if path is None:
        pytest.skip("xllamacpp is not installed")
    return path


@pytest.fixture(scope="session")
def real_url(model: Path, library: Path) -> Iterator[str]:
    """A real llama.cpp that serves the small model with four slots, started by somebody else."""
    engine, port = EmbeddedEngine(), free_port()
    values = {"--ctx-size": 4096, "--parallel": 4, "--kv-unified": False, "--threads": 1}
    process = ServerProcess(engine.command(str(model), values, port), engine.environment())
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/health") or not process.alive, START_SECONDS)
        assert process.alive, process.reason
        yield url
    finally:
        process.stop()


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No process that the test started is there at its end."""
    before = running()
    yield
    assert running() - before == set()


@pytest.fixture
def pretender(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A program that pretends to be a llama-server and misbehaves: ``pretender("hang")`` is its path."""

    def make(mode: str, **variables: str) -> str:
        program = tmp_path / "llama-server"
        program.write_text(f"#!{sys.executable} -P\n{(HERE / 'pretender.py').read_text()}")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        shutil.copy(HERE / "recordings/help_b11434.txt", tmp_path)
        monkeypatch.setenv("PRETENDER", mode)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return str(program)

    return make


def running() -> set[psutil.Process]:
    """The processes below this one."""
    children = psutil.Process().children(recursive=True)
    return {child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE}


def answers(url: str) -> bool:
    """Whether ``url`` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until ``true()``; fail where it does not become so."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

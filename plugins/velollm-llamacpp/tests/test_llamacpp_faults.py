"""Servers that crash, hang, lie or refuse: one clear line each, and nothing left running."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from velollm_llamacpp.backend import LlamaCppBackend
from velollm_llamacpp.process import failure

from velollm_core.backends.request import Request
from velollm_core.backends.setting import Setting
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_core.models.files import read_model

Pretender = Callable[..., str]
TWO_SLOTS = [Setting("--parallel", 2, "flag", "a test", "rule")]
PATIENCE = 30.0

pytestmark = pytest.mark.usefixtures("nothing_left")


def use(program: str, call: Callable[[LlamaCppBackend], Awaitable[None]], load_seconds: float = 20.0) -> None:
    async def run() -> None:
        backend = LlamaCppBackend(binary=program, load_seconds=load_seconds)
        try:
            await call(backend)
        finally:
            await backend.close()

    asyncio.run(run())


def running(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE]


def test_a_crash_in_mid_stream_is_told_with_the_servers_reason(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), ())
        stream = backend.stream(Request("m", "hello"))
        assert (await anext(stream)).text == "one"
        with pytest.raises(BackendError, match=r"died while it answered: .*GGML_ASSERT\(luck\) failed") as raised:
            await anext(stream)
        assert raised.value.kind == "crash"
        assert not (await backend.status()).reachable
        await backend.apply(read_model(model), ())
        assert (await backend.status()).reachable

    use(pretender("crashes"), call)


@pytest.mark.parametrize("mode", ["hangs", "never loads"])
def test_a_server_that_hangs_at_its_start_is_ended(pretender: Pretender, model: Path, mode: str) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match=r"did not load within 0\.5 s") as raised:
            await backend.apply(read_model(model), ())
        assert raised.value.kind == "timeout"

    use(pretender(mode), call, load_seconds=0.5)


def test_a_server_that_refuses_is_told_by_its_own_reason(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match=r"did not start with .*: error loading model: it is broken") as raised:
            await backend.apply(read_model(model), ())
        assert "\n" not in str(raised.value)

    use(pretender("refuses"), call)


def test_a_port_that_was_taken_meanwhile_is_tried_again(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), ())
        assert (await backend.status()).running

    use(pretender("port taken once"), call)


def test_settings_that_read_back_otherwise_are_rolled_back(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        with pytest.raises(BackendError, match="--parallel was set to 2 and reads back as 3") as raised:
            await backend.apply(read_model(model), TWO_SLOTS)
        assert raised.value.kind == "readback"
        assert not (await backend.status()).running
        await backend.apply(read_model(model), ())
        with pytest.raises(BackendError, match="reads back as 3; the settings before are in force again"):
            await backend.apply(read_model(model), TWO_SLOTS)
        assert (await backend.read_back())["--parallel"] == 1

    use(pretender("other slots"), call)


def test_a_busy_server_is_not_restarted(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        await backend.apply(read_model(model), TWO_SLOTS)
        with pytest.raises(BackendError, match="2 requests in flight"):
            await backend.apply(read_model(model), ())

    use(pretender("busy"), call)


def test_a_program_that_is_no_llama_server_is_a_status(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        status = await backend.status()
        assert not status.reachable
        assert "lists no flags" in str(status.reason)
        with pytest.raises(BackendError, match="lists no flags"):
            await backend.apply(read_model(model), ())

    use(pretender("no help"), call)


def test_a_program_that_is_not_there_is_a_status() -> None:
    async def call(backend: LlamaCppBackend) -> None:
        status = await backend.status()
        assert not status.reachable
        assert "not a program that can be run" in str(status.reason)

    use("/nowhere/llama-server", call)


def test_nothing_here_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("velollm_llamacpp.backend.find_engine", lambda binary: None)

    async def run() -> None:
        backend = LlamaCppBackend()
        status = await backend.status()
        assert not status.reachable
        assert "pip install velollm[llamacpp]" in str(status.reason)
        with pytest.raises(BackendUnreachable):
            _ = [chunk async for chunk in backend.stream(Request("m", "hello"))]
        await backend.close()

    asyncio.run(run())


def test_being_cancelled_leaves_nothing_running(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        before = running(psutil.Process())
        task = asyncio.create_task(backend.apply(read_model(model), ()))
        while running(psutil.Process()) == before:
            await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert running(psutil.Process()) == before

    use(pretender("never loads"), call)


PARENT = """
import asyncio, sys
from pathlib import Path
from velollm_core.interruptible import run_interruptibly
from velollm_core.models.files import read_model
from velollm_llamacpp.backend import LlamaCppBackend

async def main():
    backend = LlamaCppBackend(binary=sys.argv[1])
    try:
        await backend.apply(read_model(Path(sys.argv[2])), ())
        print("ready", flush=True)
        await asyncio.sleep(600)
    finally:
        await backend.close()

run_interruptibly(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_no_server_outlives_velollm(pretender: Pretender, model: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PARENT, pretender("well"), str(model)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = running(psutil.Process(parent.pid))
        assert len(children) == 2, "the guard, and the server behind it"
        os.kill(parent.pid, number)
        _, alive = psutil.wait_procs(children, PATIENCE)
        assert alive == []
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_no_server_outlives_its_guard(pretender: Pretender, model: Path) -> None:
    async def call(backend: LlamaCppBackend) -> None:
        before = running(psutil.Process())
        await backend.apply(read_model(model), ())
        guard, server = [child for child in running(psutil.Process()) if child not in before]
        guard.kill()
        _, alive = psutil.wait_procs([server], PATIENCE)
        assert alive == []

    use(pretender("well"), call)


def test_a_server_deaf_to_requests_to_end_is_killed(tmp_path: Path) -> None:
    from velollm_llamacpp import guard

    deaf = tmp_path / "deaf.py"
    deaf.write_text("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('on')\ntime.sleep(600)")
    server = subprocess.Popen([sys.executable, "-u", str(deaf)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    server.stdout.readline()
    began = time.monotonic()
    guard.stop(server, grace=0.2)
    assert server.wait() == -signal.SIGKILL
    assert time.monotonic() - began < PATIENCE
    server.stdout.close()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["0.00.1 E x: broken", "0.00.2 E srv  llama_server: exiting due to model loading error"], "broken"),
        (["0.00.2 E srv  llama_server: exiting due to model loading error"], "exiting due to model loading error"),
        (["0.00.1 I all is well"], None),
        (["error: invalid argument: --nonsense"], "invalid argument: --nonsense"),
        (["/build/ggml.c:17: GGML_ASSERT(luck) failed"], "GGML_ASSERT(luck) failed"),
        ([], None),
    ],
)
def test_the_cause_is_told_before_its_consequences(lines: list[str], reason: str | None) -> None:
    assert failure(lines) == reason

"""The child process: what it refuses, how it dies, and that nobody waits for the dead."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from attrs import evolve
from velollm_llamacpp.engine.engine import Engine, open_engine
from velollm_llamacpp.engine.messages import CacheFull, Draw, Remove, Run, Sampled, Save, Share, Step
from velollm_llamacpp.engine.options import EngineOptions
from velollm_llamacpp.engine.process import WorkerProcess

from velollm_core.backends.request import Message, Request, SamplingParams
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import BackendError, ModelFileError, ModelRefused, VeloError
from velollm_core.testing import run_cli

OPTIONS = EngineOptions(total_context=256, parallel=2, threads=1)


@pytest.fixture(scope="module")
def engine(model: Path, library: Path) -> Iterator[Engine]:
    with open_engine(model, OPTIONS) as opened:
        yield opened


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (Step(runs=(Run(999, 0, (1,), None),)), "sequence id 999"),
        (Step(runs=(Run(0, 5, (1,), None),)), "ends at 0, not at 5"),
        (Step(runs=(Run(0, 0, (300,), None),)), "vocabulary of 300"),
        (Step(runs=(Run(0, 0, (1,), None), Run(0, 1, (1,), None))), "twice"),
        (Step((Remove(-1),)), "sequence id -1"),
        (Step((Save(36, "x"),)), "sequence id 36"),
        (Step((Share(0, 1, 0, 16),)), "cannot share"),
        (Step((Share(0, 0, 0, 1),)), "cannot share"),
        (Step((Share(0, 77, 0, 1),)), "sequence id 77"),
    ],
)
def test_what_would_abort_is_refused_before(engine: Engine, step: Step, reason: str) -> None:
    with pytest.raises(BackendError, match=reason):
        engine.executor.process.ask(step)
    assert engine.executor.process.ask(Step()) == Sampled(())


def test_a_bug_in_the_child_has_a_name(engine: Engine) -> None:
    bug = Step(runs=(Run(0, 0, (1,), "no draw"),))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=r"a bug in the engine's process.*AttributeError"):
        engine.executor.process.ask(bug)
    assert engine.executor.process.ask(Step((Remove(0),))) == Sampled(())


def test_a_full_cache_is_told_and_survived(engine: Engine) -> None:
    process = engine.executor.process
    fill = Run(0, 0, (40,) * 256, None)
    assert process.ask(Step(runs=(fill,))) == Sampled(())
    assert process.ask(Step(runs=(Run(1, 0, (41,), Draw()),))) == CacheFull()
    again = process.ask(Step((Remove(0, 100),), (Run(1, 0, (41,), Draw()),)))
    assert isinstance(again, Sampled)
    assert len(again.token_ids) == 1
    process.ask(Step((Remove(0), Remove(1))))


def test_a_crash_is_one_error(model: Path, library: Path) -> None:
    with open_engine(model, OPTIONS) as engine:
        engine.loop.scheduler.add(Sequence("a", [40] * 20, SamplingParams(max_tokens=200)))
        engine.loop.step()
        os.kill(engine.executor.process.pid, signal.SIGSEGV)
        with pytest.raises(BackendError, match=r"process died \(signal 11\)") as caught:
            list(engine.loop.run())
        assert caught.value.kind == "crash"
        with pytest.raises(BackendError, match="process died"):
            engine.text.encode("x")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_tells_the_whole_group_to_end_is_left_to_the_parent(
    model: Path, library: Path, number: signal.Signals
) -> None:
    with open_engine(model, OPTIONS) as engine:
        os.kill(engine.executor.process.pid, number)
        sequence = Sequence("a", [40] * 20, SamplingParams(max_tokens=20, ignore_eos=True))
        engine.loop.scheduler.add(sequence)
        list(engine.loop.run())
        assert len(sequence.output_token_ids) == 20


def test_who_asked_is_told_of_a_death_but_not_of_an_end(model: Path, library: Path) -> None:
    told: list[str] = []
    with open_engine(model, OPTIONS) as engine:
        engine.executor.process.when_it_dies(lambda error: told.append(str(error)))
    assert told == []
    with open_engine(model, OPTIONS) as engine:
        process = engine.executor.process
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match=r"signal 9"):
            process.receive()
        process._reader.join(10)
        process.when_it_dies(lambda error: told.append(str(error)))
        assert told == ["llamacpp: the engine's process died (signal 9)"]


def test_a_hang_is_an_error(model: Path, library: Path) -> None:
    with open_engine(model, evolve(OPTIONS, step_seconds=1.0)) as engine:
        engine.loop.scheduler.add(Sequence("a", [40] * 20, SamplingParams(max_tokens=200)))
        os.kill(engine.executor.process.pid, signal.SIGSTOP)
        with pytest.raises(BackendError, match="no answer within 1 s"):
            list(engine.loop.run())
        assert not psutil.pid_exists(engine.executor.process.pid)


def test_it_ends_with_its_parent(model: Path, library: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from velollm_llamacpp.engine.engine import open_engine\n"
        "engine = open_engine(Path(sys.argv[1])); print(engine.executor.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(model)], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([child], timeout=10)[1] == []


def test_a_model_that_cannot_be_run_is_refused(model: Path, library: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="not found"):
        open_engine(tmp_path / "none.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:5000])
    with pytest.raises(ModelRefused, match=r"broken\.gguf cannot be loaded"):
        open_engine(broken)
    with pytest.raises(ModelRefused, match="context is 4096, and it was trained for 2048"):
        open_engine(model, evolve(OPTIONS, context=4096, total_context=4096))
    with pytest.raises(ModelRefused, match="cannot be run so"):
        open_engine(model, evolve(OPTIONS, flash_attn="off", type_v="q8_0"))


def test_another_build_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    other.write_bytes(b"no library")
    monkeypatch.setattr("velollm_llamacpp.engine.engine.find_library", lambda: other)
    with pytest.raises(ModelRefused, match=r"other\.so is not the llama\.cpp of xllamacpp"):
        open_engine(model, OPTIONS)
    monkeypatch.setattr("velollm_llamacpp.engine.engine.find_library", lambda: None)
    with pytest.raises(BackendError, match="pip install"):
        open_engine(model, OPTIONS)


def test_a_closed_engine_says_so(model: Path, library: Path) -> None:
    engine = open_engine(model, OPTIONS)
    engine.close()
    engine.close()
    with pytest.raises(BackendError, match="was closed"):
        engine.text.encode("x")


@pytest.mark.parametrize(
    "wrong", [{"parallel": 0}, {"parallel": 120}, {"total_context": 16}, {"batch": 4}, {"context": 4097}]
)
def test_options_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(VeloError):
        EngineOptions(**wrong)  # type: ignore[arg-type]


def test_nothing_is_answered_before_a_model_is_there() -> None:
    process = WorkerProcess()
    try:
        with pytest.raises(BackendError, match="no model"):
            process.ask(Step())
        with pytest.raises(BackendError, match="no model"):
            process.tokenize("x", special=True)
    finally:
        process.close()


def test_generate_writes_answers(model: Path, library: Path) -> None:
    done = run_cli("llamacpp", "generate", str(model), "-p", "the", "-p", "cat", "--max-tokens", "4", "--json")
    assert done.code == 0, done.stderr
    answers = json.loads(done.stdout)["generation"]["answers"]
    assert [answer["completion_tokens"] for answer in answers] == [4, 4]
    failed = run_cli("llamacpp", "generate", str(model), "-p", "the", "--max-tokens", "9999")
    assert failed.code == 1
    assert "shorten the prompt" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_serve_answers_our_own_client(model: Path, library: Path) -> None:
    from velollm_core.backends.openai import OpenAIBackend

    command = [sys.executable, "-m", "velollm_core", "llamacpp", "serve", str(model), "--port", "0"]
    server = subprocess.Popen([*command, "--threads", "1", "--api-key", "k"], stdout=subprocess.PIPE, text=True)
    with server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            url = line.split()[-1].removesuffix("/v1")
            backend = OpenAIBackend(url, "k")
            asyncio.run(_ask_side_by_side(backend))
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0


async def _ask_side_by_side(backend) -> None:  # type: ignore[no-untyped-def]
    status = await backend.status()
    assert status.reachable
    sampling = SamplingParams(max_tokens=12)
    requests = [Request("model", prompt=f"number {each}", sampling=sampling) for each in range(3)]
    requests.append(Request("model", messages=(Message("user", "hi"),), sampling=sampling))

    async def whole(request: Request) -> tuple[str, int | None]:
        chunks = [chunk async for chunk in backend.stream(request)]
        usage = [chunk.usage for chunk in chunks if chunk.usage]
        return "".join(chunk.text for chunk in chunks), usage[-1].completion_tokens if usage else None

    answers = await asyncio.gather(*map(whole, requests))
    assert all(text for text, _ in answers)
    assert [count for _, count in answers] == [12] * 4
    await backend.close()

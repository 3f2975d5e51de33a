"""A benchmark that somebody stops: the block is ended, and what there is is reported and kept."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from velollm_core.benchmark.arrivals import Arrivals
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.listener import Silent
from velollm_core.benchmark.load import Load
from velollm_core.benchmark.runner import check_answered, run
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.store import read_runs
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError

TASKS = Workload("w", "m", (Task("one", "say one thing", 5, 3), Task("two", "say two things", 9, 900)))


class Stop(Silent):
    """Stops the run after ``samples`` of them, or when a phase begins or a block ends, as Ctrl-C does."""

    def __init__(self, samples: int | None = None, *, block: int | None = None) -> None:
        self.samples = samples
        self.block_index = block
        self.task: asyncio.Task[Any] | None = None

    def sample(self, sample: Sample) -> None:
        """Count."""
        if self.samples is not None and not sample.warm_up:
            self.samples -= 1
            self._stop(self.samples == 0)

    def block(self, block: Block) -> None:
        """The next thing awaited is a look at the machine, before the next block."""
        self._stop(block.index == self.block_index)

    def _stop(self, now: bool) -> None:
        if now and self.task is not None:
            self.task.cancel()


@pytest.fixture
def stopped(virtually: Any, loop_clock: Any, quiet: Any) -> Any:
    def measure(backend: Any, workload: Workload, stop: Stop) -> Any:
        async def go() -> Any:
            stop.task = asyncio.current_task()
            return await run(backend, workload, Circumstances(clock=loop_clock, sources=quiet, listener=stop))

        return virtually(go())

    return measure


def test_tasks_end_with_what_was_finished(stopped: Any, paced: Any) -> None:
    report = stopped(paced(), TASKS, Stop(13))
    one, two = report.tasks
    assert report.stopped
    assert (one.requests, one.succeeded, two.requests, two.failures) == (3, 3, 10, {})
    assert [block.index for block in report.blocks] == [0, 1]
    assert report.notes[0].startswith("stopped on request")


def test_between_two_blocks_the_first_one_stands(stopped: Any, paced: Any) -> None:
    report = stopped(paced(), TASKS, Stop(block=0))
    assert report.stopped
    assert [(task.name, task.requests) for task in report.tasks] == [("one", 3)]


@pytest.mark.parametrize("arrivals", [None, Arrivals("poisson", 5.0)])
def test_a_load_ends_with_what_was_finished(stopped: Any, paced: Any, arrivals: Arrivals | None) -> None:
    backend = paced(ttft=0.5)
    report = stopped(backend, Workload("load", "m", concurrency=3, load=Load(seconds=1e6, arrivals=arrivals)), Stop(40))
    assert report.stopped
    assert report.load.sent == 40
    assert backend.running == 0
    assert len(report.blocks) == 1


def test_nothing_measured_is_nothing_reported() -> None:
    with pytest.raises(BackendError, match="stopped before a request was finished"):
        check_answered("b", [], stopped=True)


def test_control_c_writes_what_there_is(paced_cli: Any, tmp_path: Path) -> None:
    written = ["-o", str(tmp_path / "s.jsonl"), "--report", str(tmp_path / "r.html")]
    command = [sys.executable, "-m", "velollm_core", "benchmark", "--model", "model.gguf", *written]
    process = subprocess.Popen(
        command,
        cwd=paced_cli.folder,
        env=paced_cli.environment({"real": True}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while '"warm_up": false' not in _text(tmp_path / "s.jsonl"):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1, err
    assert "Note: stopped on request" in out
    assert "velollm: stopped; these are the figures of what was finished" in err.splitlines()[-1]
    assert "stopped on request" in (tmp_path / "r.html").read_text()
    (kept,) = read_runs(tmp_path / "s.jsonl")
    assert len(kept.blocks) == 1
    assert (tmp_path / "pace.log").read_text().splitlines()[-1] == "close"


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""

"""A server that fails in every way: the run ends, finished samples are kept, failures are counted by kind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from velollm_core.backends.client import Timeouts
from velollm_core.backends.openai import OpenAIBackend
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.noise import judge
from velollm_core.benchmark.runner import run
from velollm_core.benchmark.store import SampleFile, read_runs
from velollm_core.benchmark.warmup import BRIEF
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.testing import FakeServer, Reply, document, events, openai_routes, silence

ROUTE = "POST /v1/completions"
MODEL = "fake-1b"
TASK = Task("t", "say it", 4, 3)


class Plain(OpenAIBackend):
    name = "plain"


def good(usage: dict[str, object] | None = None, **changes: Any) -> Reply:
    counts = {"prompt_tokens": 5, "completion_tokens": 4} if usage is None else usage
    said: list[object] = [{"choices": [{"text": word}]} for word in ("a", "b", "c", "d")]
    end = {"choices": [{"text": "", "finish_reason": "length"}], "usage": counts}
    return evolve(events(*said, end), **changes)


FAULTS = {
    "killed mid-stream": (good().cut(90, "reset"), {"disconnected", "truncated", "unreachable"}),
    "half-closed": (good().cut(90, "close"), {"disconnected", "truncated"}),
    "hung before the first byte": (silence(), {"timeout"}),
    "hung mid-stream": (good().cut(90, "hang"), {"timeout"}),
    "429": (document({"error": {"message": "slow down"}}, 429), {"http_429"}),
    "500": (document({"error": "boom"}, 500), {"http_500"}),
    "503": (document({"error": {"message": "loading"}}, 503), {"http_503"}),
    "malformed": (Reply((b"data: {not json\n\n",), content_type="text/event-stream"), {"malformed"}),
    "too many tokens": (good({"prompt_tokens": 5, "completion_tokens": 400}), {"miscounted"}),
    "an error in the stream": (events({"error": {"message": "no slot", "code": 500}}), {"http_500", "server"}),
    "nothing": (events({"choices": [{"text": "", "finish_reason": "stop"}]}), {"empty"}),
}


def measured(url: str, path: Path, silence_seconds: float = 20.0) -> Any:
    workload = Workload("w", MODEL, (TASK,))
    backend = Plain(url, timeouts=Timeouts(first_byte=silence_seconds, chunk=silence_seconds))

    async def go() -> Any:
        try:
            with SampleFile(path, "r") as file:
                file.begin(workload, describe("plain", None))
                return await run(backend, workload, Circumstances(listener=file, rule=BRIEF, limit=20.0))
        finally:
            await backend.close()

    return asyncio.run(go())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_its_own_request(fault: str, tmp_path: Path) -> None:
    """The warm-up is well; of three measured requests the second meets the fault."""
    reply, kinds = FAULTS[fault]
    routes = {**openai_routes(MODEL), ROUTE: [good(), good(), reply, good()]}
    with FakeServer(routes) as server:
        # Long enough for a busy machine's good answers.
        report = measured(server.url, tmp_path / "s.jsonl", 1.5 if "hung" in fault else 20.0)
    (task,) = report.tasks
    assert task.requests == 3
    assert task.succeeded == 2, task.failures
    assert sum(task.failures.values()) == 1
    assert set(task.failures) <= kinds
    (kept,) = read_runs(tmp_path / "s.jsonl")
    assert len(kept.samples) == 4
    assert len(kept.blocks) == 1
    assert sum(sample.timing.failure is None for sample in kept.samples) == 3


def test_a_server_that_dies_ends_the_run_with_what_there_was(tmp_path: Path) -> None:
    dead = good().cut(0, "reset")
    with FakeServer({**openai_routes(MODEL), ROUTE: [good(), good(), dead]}) as server:
        workload = evolve(TASK, repeats=50)
        backend = Plain(server.url)

        async def go() -> Any:
            try:
                return await run(backend, Workload("w", MODEL, (workload,)), Circumstances(rule=BRIEF, limit=5.0))
            finally:
                await backend.close()

        report = asyncio.run(go())
    assert report.tasks[0].succeeded == 1
    assert sum(report.tasks[0].failures.values()) == 3


def test_wrong_counts_in_usage_are_not_believed(tmp_path: Path) -> None:
    """Usage that is no number, or lacks: the request stands, without rates, or is counted as malformed."""
    odd = [good({"completion_tokens": "four"}), good({}), good({"completion_tokens": None})]
    with FakeServer({**openai_routes(MODEL), ROUTE: [good(), *odd]}) as server:
        report = measured(server.url, tmp_path / "s.jsonl")
    assert "decode_rate" not in report.tasks[0].metrics
    read_runs(tmp_path / "s.jsonl")


def test_a_wall_clock_that_jumps_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**9, 86400))
    monkeypatch.setattr(time, "time", lambda: float(next(jumps)))
    with FakeServer({**openai_routes(MODEL), ROUTE: good()}) as server:
        report = measured(server.url, tmp_path / "s.jsonl")
    assert report.tasks[0].succeeded == 3
    assert report.tasks[0].metrics["e2e"].maximum < 60
    (block,) = report.blocks
    assert "slept" not in " ".join(judge(block.before, block.after).causes)

"""`velollm llamacpp serve` from outside: OpenAI's own client, clients that leave, a child that dies."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import openai
import psutil
import pytest
from attrs import frozen

from velollm_core.testing import run_cli

BLOCKS, PARALLEL = 64, 6
POOL = BLOCKS * 16
GREEDY = {"model": "model", "temperature": 0.0}


@frozen
class Serving:
    """A running server."""

    url: str
    process: subprocess.Popen[str]

    def ask(self, key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60)

    def metrics(self) -> dict[str, float]:
        """The samples of ``/metrics`` by name; those of one reason for an end under that reason."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.findall(r'^vllm:(\w+)\{(?:.*finished_reason="(\w+)")?.*\} (\S+)$', text, re.MULTILINE)
        return {reason or name: float(value) for name, reason, value in found}

    def child(self) -> psutil.Process:
        """The process that llama.cpp lives in."""
        (child,) = psutil.Process(self.process.pid).children()
        return child


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Serving]:
    command = [sys.executable, "-m", "velollm_core", "llamacpp", "serve", str(model), "--port", "0", "--threads", "1"]
    sizes = ["--parallel", str(PARALLEL), "--total-context", str(POOL), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*command, *sizes], **pipes, text=True) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            yield Serving(process.stdout.readline().split()[-1].removesuffix("/v1"), process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def served(model: Path, library: Path) -> Iterator[Serving]:
    with serving(model) as one:
        yield one


def test_openais_client_completes(served: Serving) -> None:
    with served.ask() as client:
        assert [each.id for each in client.models.list()] == ["model"]
        whole = client.completions.create(prompt="the cat", max_tokens=40, **GREEDY)
        text = whole.choices[0].text
        assert whole.usage
        assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (40, "length")
        # Two characters that two tokens share between them.
        stop = text[10:14]
        ended = client.completions.create(prompt="the cat", max_tokens=40, stop=["never", stop], **GREEDY)
        assert ended.choices[0].text == text[: text.index(stop)]
        assert ended.choices[0].finish_reason == "stop"
        ids = client.completions.create(prompt=[[65, 66], [67]], n=2, max_tokens=5, **GREEDY)
        texts = [choice.text for choice in ids.choices]
        assert texts[0] == texts[1]
        assert texts[2] == texts[3]
        assert ids.usage
        assert ids.usage.prompt_tokens == 3


@pytest.mark.parametrize(
    "extreme", [{"top_p": 0}, {"temperature": 1e-300}, {"seed": 2**63 - 1}, {"n": 16}, {"stop": ""}]
)
def test_extremes_are_answered(served: Serving, extreme: dict[str, object]) -> None:
    with served.ask() as client:
        asked = {"model": "model", "prompt": "the", "max_tokens": 4, "temperature": 1.0, **extreme}
        whole = client.completions.create(**asked)  # type: ignore[call-overload]
        assert {choice.finish_reason for choice in whole.choices} <= {"length", "stop"}


def test_openais_client_streams_a_chat_with_usage(served: Serving) -> None:
    with served.ask() as client:
        asked = {"model": "model", "messages": [{"role": "user", "content": "héllo 🎉"}], "max_tokens": 12, "seed": 5}
        drawn = [client.chat.completions.create(**asked).choices[0].message.content for _ in range(2)]
        events = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        text = "".join(event.choices[0].delta.content or "" for event in events[:-1])
        assert text == drawn[0] == drawn[1]
        assert events[-2].choices[0].finish_reason == "length"
        assert events[-1].choices == []
        assert events[-1].usage.completion_tokens == 12


def test_openais_client_is_refused_in_one_line(served: Serving) -> None:
    with served.ask() as client:
        with pytest.raises(openai.BadRequestError, match=r"\d+ prompt tokens and 5000 .* more than the 1024"):
            client.completions.create(prompt="the", max_tokens=5000, **GREEDY)
        with pytest.raises(openai.BadRequestError, match="tools is not supported here"):
            client.chat.completions.create(
                model="model", messages=[{"role": "user", "content": "x"}], tools=[{"type": "function"}]
            )
        with pytest.raises(openai.NotFoundError, match="no model 'other'"):
            client.completions.create(model="other", prompt="x")


def test_it_is_measured_by_name_and_compared(served: Serving, tmp_path: Path) -> None:
    words = ("benchmark", "--backend", "llamacpp", "--url", served.url, "--answer-tokens", "8", "--prompt-tokens", "16")
    files = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for file in files:
        done = run_cli(*words, "--concurrency", "2", "--requests", "6", "-o", file, home=tmp_path)
        assert done.code == 0, done.stderr
    begun = json.loads(files[0].read_text().splitlines()[0])
    assert (begun["environment"]["backend"], begun["environment"]["backend_version"]) == (
        "llamacpp",
        "velollm llamacpp serve",
    )
    judged = run_cli("compare", *files, "--json", home=tmp_path)
    assert judged.code == 0, judged.stderr
    assert json.loads(judged.stdout)["first"]["backend"] == "llamacpp"


async def _request(client: openai.AsyncOpenAI, number: int, random: Random, wait: float) -> str:
    """One request of the storm: it stays, or leaves after some tokens, or before the first one."""
    await asyncio.sleep(wait)
    count, kind = random.randint(8, 40), random.choices(("stays", "leaves", "never reads"), (70, 20, 10))[0]
    prompt = [40 + number % 3] * random.choice((10, 60, 130)) + [33 + number % 60]
    asked = {"prompt": prompt, "max_tokens": count, "extra_body": {"ignore_eos": True}, **GREEDY}
    if kind == "never reads":
        with pytest.raises(openai.APITimeoutError):
            await client.with_options(timeout=0.005).completions.create(**asked)
        return kind
    stream = await client.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    seen = 0
    async with stream:
        async for event in stream:
            if event.usage:
                assert event.usage.completion_tokens == count
                return "stays"
            seen += len(event.choices)
            if kind == "leaves" and seen >= 3:
                return kind
    raise AssertionError("a stream without usage")


@pytest.mark.parametrize("load", ["burst", "steady"])
def test_a_third_leaves_and_no_block_with_them(served: Serving, load: str) -> None:
    before = served.metrics()

    async def storm() -> list[str]:
        random = Random(load)
        waits = [0.0 if load == "burst" else 0.02 * number for number in range(60)]
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            return await asyncio.gather(*(_request(client, each, random, wait) for each, wait in enumerate(waits)))

    outcomes = asyncio.run(storm())
    left = len(outcomes) - outcomes.count("stays")
    assert 12 <= left <= 24
    after = served.metrics()
    while after["num_requests_running"] + after["num_requests_waiting"]:
        after = served.metrics()
    assert after["kv_cache_usage_perc"] == 0, "blocks leaked"
    assert after["length"] - before["length"] >= outcomes.count("stays")
    assert after["abort"] > before["abort"]
    # Every cell and every sequence id can be had again: two rounds of as many as fit, the whole pool between them.
    size = POOL // PARALLEL // 16 * 16
    prompts = [[33 + each] * (size - 8) for each in range(PARALLEL)]
    with served.ask() as client:
        for _ in range(2):
            whole = client.completions.create(
                prompt=prompts, max_tokens=8, extra_body={"ignore_eos": True, "cache_prompt": False}, **GREEDY
            )
            assert [choice.finish_reason for choice in whole.choices] == ["length"] * PARALLEL


def test_the_key_is_asked_for(model: Path, library: Path, nothing_left: None) -> None:
    with serving(model, "--api-key", "k") as one:
        with pytest.raises(openai.AuthenticationError, match="asks for its API key"):
            one.ask("wrong").models.list()
        assert [each.id for each in one.ask("k").models.list()] == ["model"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_child(model: Path, library: Path, nothing_left: None, number: signal.Signals) -> None:
    with serving(model) as one:
        stream = one.ask().completions.create(prompt="the", max_tokens=100, stream=True, **GREEDY)
        next(iter(stream))
        one.process.send_signal(number)
        assert one.process.wait(30) == 0
        assert one.process.stderr is not None
        assert one.process.stderr.read() == ""


@pytest.mark.parametrize("busy", [True, False])
def test_a_child_that_is_killed_ends_it_with_one_line(
    model: Path, library: Path, nothing_left: None, busy: bool
) -> None:
    with serving(model) as one:
        stream = one.ask().completions.create(prompt="the", max_tokens=1000, stream=True, **GREEDY) if busy else None
        if stream:
            next(iter(stream))
        one.child().kill()
        if stream:
            with pytest.raises(openai.APIError, match=r"process died \(signal 9\)"):
                list(stream)
        assert one.process.wait(30) == 1
        assert one.process.stderr is not None
        assert one.process.stderr.read() == "velollm: llamacpp: the engine's process died (signal 9)\n"


def test_a_taken_port_is_found_before_the_model_is_loaded(model: Path, library: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "velollm_core", "llamacpp", "serve", "never-loaded.gguf", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"velollm: cannot listen on 127.0.0.1:{port}: ")
    assert len(done.stderr.splitlines()) == 1

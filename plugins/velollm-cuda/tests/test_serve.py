"""`velollm cuda serve`: the core's server over this engine, asked by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from attrs import define
from velollm_cuda import LLM, SamplingParams
from velollm_cuda.asks import Asks
from velollm_cuda.options import EngineOptions
from velollm_cuda.runner import ModelRunner
from velollm_cuda.served import ServedModel
from velollm_cuda.testing import write_tiny_model
from velollm_cuda.text import CudaTextModel

from velollm_core.backends import request
from velollm_core.backends.request import Message
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import OutOfBlocks, VeloError

SMALL = {"max_model_len": 512, "kv_cache_bytes": 4 << 20}
KEY = "a-key"


@define
class Server:
    """A running `velollm cuda serve`."""

    process: subprocess.Popen[str]
    url: str

    def client(self, key: str = KEY) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("serve") / "model")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One server for all tests of the wire; it must end by Ctrl-C, in peace."""
    options = (
        "--port",
        "0",
        "--name",
        "tiny",
        "--max-model-len",
        "512",
        "--max-num-seqs",
        "8",
        "--kv-cache-bytes",
        "8000000",
    )
    command = [sys.executable, "-m", "velollm_core", "cuda", "serve", str(folder), *options]
    environment = {**os.environ, "VELOLLM_CUDA_API_KEY": KEY}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout
        said = process.stdout.readline()
        assert said.startswith("Serving tiny on the CPU, by plain torch at http://127.0.0.1:"), process.communicate()
        yield Server(process, said.split()[-1])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(folder, **SMALL) as llm:  # type: ignore[arg-type]
        yield llm


def test_the_client_streams_a_completion(server: Server, llm: LLM) -> None:
    (wanted,) = llm.generate("Hello", SamplingParams(max_tokens=24, ignore_eos=True))
    with server.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        events = list(
            client.completions.create(
                model="tiny",
                prompt="Hello",
                max_tokens=24,
                temperature=0,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"ignore_eos": True},
            )
        )
    assert "".join(choice.text for event in events for choice in event.choices) == wanted.text
    assert [choice.finish_reason for event in events for choice in event.choices if choice.finish_reason] == ["length"]
    assert events[-1].usage is not None
    assert (events[-1].usage.prompt_tokens, events[-1].usage.completion_tokens) == (6, 24)
    assert len(events) > 5


def test_the_client_chats(server: Server, llm: LLM) -> None:
    (wanted,) = llm.chat([{"role": "user", "content": "Hi"}], SamplingParams(max_tokens=8, ignore_eos=True))
    with server.client() as client:
        answer = client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "Hi"}], max_tokens=8, temperature=0,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
    assert answer.choices[0].message.content == wanted.text
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(wanted.prompt_token_ids)


def test_token_ids_and_several_answers(server: Server, llm: LLM) -> None:
    (wanted,) = llm.generate([[5, 6, 7]], SamplingParams(max_tokens=4, ignore_eos=True))
    with server.client() as client:
        answer = client.completions.create(
            model="tiny", prompt=[5, 6, 7], max_tokens=4, temperature=0, n=2, extra_body={"ignore_eos": True}
        )
        assert [choice.text for choice in answer.choices] == [wanted.text] * 2
        with pytest.raises(openai.BadRequestError, match="not below 320"):
            client.completions.create(model="tiny", prompt=[320])


def test_penalties_and_log_probabilities(server: Server, llm: LLM) -> None:
    wishes: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "presence_penalty": 1.5, "frequency_penalty": 0.5}
    (wanted,) = llm.generate("Hello", SamplingParams(**wishes, logprobs=True, ignore_eos=True, repetition_penalty=1.3))
    extra = {"ignore_eos": True, "repetition_penalty": 1.3}
    with server.client() as client:
        answer = client.completions.create(model="tiny", prompt="Hello", **wishes, logprobs=4, extra_body=extra)
    (choice,) = answer.choices
    assert choice.text == wanted.text
    assert choice.logprobs
    assert choice.logprobs.top_logprobs
    assert all(1 <= len(each) <= 4 for each in choice.logprobs.top_logprobs), "pieces of characters share a text"
    assert choice.logprobs.token_logprobs == pytest.approx(wanted.outputs[0].logprobs, abs=1e-4)


def test_the_key_is_asked_for(server: Server) -> None:
    with server.client("wrong") as client, pytest.raises(openai.AuthenticationError, match="asks for its API key"):
        client.models.list()


def test_a_prompt_too_long_is_the_clients_error(server: Server) -> None:
    with server.client() as client, pytest.raises(openai.BadRequestError, match="512 is the most"):
        client.completions.create(model="tiny", prompt="x" * 600)


def test_counters_follow(server: Server) -> None:
    with server.client() as client:
        client.completions.create(model="tiny", prompt="Hello", max_tokens=2)
        root = server.url.removesuffix("/v1")
        page = client._client.get(f"{root}/metrics", headers={"Authorization": f"Bearer {KEY}"}).text
    assert 'vllm:num_requests_running{model_name="tiny"} 0' in page


Load = Callable[..., ServedModel]


@pytest.fixture(params=[ServedModel.load, ServedModel.start], ids=["thread", "process"])
def load(request: pytest.FixtureRequest) -> Load:
    """Both places where the engine of a served model may run."""
    load: Load = request.param
    return load


@pytest.fixture
def served(load: Load, folder: Path) -> Iterator[ServedModel]:
    options = EngineOptions(max_num_seqs=32, max_model_len=128, kv_cache_bytes=1 << 18)
    served = load(folder, options, name="tiny")
    yield served
    served.close()


def test_a_thousand_requests_with_many_aborts_leak_no_block(served: ServedModel) -> None:
    draw = random.Random(0)

    async def one(number: int, finished: list[int]) -> None:
        prompt = [draw.randrange(256) for _ in range(draw.randint(1, 40))]
        sampling = request.SamplingParams(max_tokens=draw.randint(1, 6), ignore_eos=True)
        sequence = Sequence(str(number), prompt, sampling)
        async with aclosing(served.running.stream(sequence)) as batches:
            async for _ in batches:
                if number % 10 < 3:
                    return
        finished.append(len(sequence.output_token_ids) - sampling.max_tokens)

    async def storm() -> None:
        finished: list[int] = []
        await asyncio.gather(*(one(number, finished) for number in range(1000)))
        assert finished == [0] * 700
        for _ in range(500):
            stats = await served.running.stats()
            if not stats.running + stats.waiting + stats.leaving:
                break
            await asyncio.sleep(0.01)
        usage = await served.running.usage()
        assert usage.used == 0

    asyncio.run(storm())


def test_how_the_model_treats_text(served: ServedModel) -> None:
    assert served.text.name == "tiny"
    assert served.text.stop_ids == {257}
    assert served.text.vocab_size == 320
    assert served.text.encode("!") == [256, 0]
    assert served.text.chat([Message("user", "!")]) == [256, 259, 0, 257, 260]
    assert served.text.chat([Message("user", "!")], add_generation_prompt=False) == [256, 259, 0, 257]
    assert served.text.detokenizer().feed([0]) == "!"
    assert not served.running.failure


def test_the_authors_way_of_sampling(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path)
    (folder / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.6, "top_k": 20}')
    assert CudaTextModel.load(folder, "tiny").sampling == {"temperature": 0.6, "top_k": 20}
    (folder / "generation_config.json").write_text('{"top_p": 0}')
    with pytest.raises(VeloError, match=r"top_p is 0\.0"):
        CudaTextModel.load(folder, "tiny")


def test_graphs_are_captured_for_the_authors_way_of_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual: list[Asks] = []
    monkeypatch.setattr(ModelRunner, "warm_up", lambda self, most_tokens, asks: usual.append(asks))
    folder, options = write_tiny_model(tmp_path), EngineOptions(kv_cache_bytes=1 << 18)
    for said, asks in (({"temperature": 0.6, "top_p": 0.9}, Asks(restricted=True)), ({}, Asks())):
        (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, **said}))
        ServedModel.load(folder, options).close()
        assert usual.pop() == asks


def test_a_closed_model_ends_its_streams(load: Load, folder: Path) -> None:
    served = load(folder, EngineOptions(max_num_seqs=4, max_model_len=256, kv_cache_bytes=1 << 18))

    async def leave_open() -> None:
        sampling = request.SamplingParams(max_tokens=200, ignore_eos=True)
        async with aclosing(served.running.stream(Sequence("a", [1], sampling))) as batches:
            await anext(batches)
            await asyncio.to_thread(served.close)
            with pytest.raises(VeloError, match="was closed"):
                async for _ in batches:
                    pass

    asyncio.run(leave_open())


def test_what_cannot_be_loaded_is_refused_in_either_place(load: Load, folder: Path) -> None:
    with pytest.raises(OutOfBlocks, match="max_model_len"):
        load(folder, EngineOptions(max_model_len=512, kv_cache_bytes=1 << 12))


def test_a_server_whose_engine_dies_ends_with_the_reason(folder: Path) -> None:
    command = [sys.executable, "-m", "velollm_core", "cuda", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        [*command, "--kv-cache-bytes", "8000000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("Serving")
        (engine,) = [
            child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())
        ]
        engine.kill()
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (1, "velollm: the engine's process died (signal 9)\n")

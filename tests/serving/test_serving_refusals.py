"""How the server says no, and what it survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from io import BytesIO
from random import Random
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.engine.limits import SchedulerLimits
from velollm_core.errors import BackendError, PluginError, VeloError
from velollm_core.serving.fields import parse
from velollm_core.serving.refusals import Refusal
from velollm_core.serving.server import running
from velollm_core.serving.service import Service

Serve = Callable[..., None]
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BAD: dict[str, tuple[str, dict[str, object], str]] = {
    "no prompt": (COMPLETIONS, {}, "prompt must be"),
    "an empty list": (COMPLETIONS, {"prompt": []}, "prompt must be"),
    "mixed prompts": (COMPLETIONS, {"prompt": ["a", 1]}, "prompt must be"),
    "negative ids": (COMPLETIONS, {"prompt": [1, -1]}, "whole numbers from 0"),
    "true is no id": (COMPLETIONS, {"prompt": [1, True]}, "whole numbers"),
    "a fraction is no id": (COMPLETIONS, {"prompt": [1, 2.0]}, "whole numbers"),
    "ids among texts": (COMPLETIONS, {"prompt": [1, "a"]}, "whole numbers"),
    "ids beyond the vocabulary": (COMPLETIONS, {"prompt": [50]}, "not below 50"),
    "ids beyond all bounds": (COMPLETIONS, {"prompt": [[1], [1, 10**30]]}, "not below 50"),
    "an empty text": (COMPLETIONS, {"prompt": ""}, "the prompt is empty: it needs at least one token"),
    "an empty text among others": (COMPLETIONS, {"prompt": ["a", ""]}, "prompt 1 of 2 is empty"),
    "no ids": (COMPLETIONS, {"prompt": [[]]}, "the prompt is empty"),
    "a prompt for everybody": (COMPLETIONS, {"prompt": ["a"] * 100, "n": 11}, "100 prompts with 11 answers each"),
    "another engine's penalty": (COMPLETIONS, {"prompt": "x", "repeat_penalty": 1.1}, "repeat_penalty is not supp"),
    "a grammar": (COMPLETIONS, {"prompt": "x", "grammar": "root ::= x"}, "grammar is not supported"),
    "no messages": (CHAT, {}, "at least one message"),
    "a message without role": (CHAT, {"messages": [{"content": "x"}]}, "with a role"),
    "a picture": (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type text"),
    "what the template refuses": (CHAT, {"messages": [{"role": "assistant", "content": "x"}]}, "wants a user first"),
    "a hot temperature": (COMPLETIONS, {"prompt": "x", "temperature": 3}, "temperature must be a number from 0 to 2"),
    "tokens as text": (COMPLETIONS, {"prompt": "x", "max_tokens": "9"}, "max_tokens must be a whole number"),
    "no tokens": (COMPLETIONS, {"prompt": "x", "max_tokens": 0}, "from 1 to"),
    "stream as text": (COMPLETIONS, {"prompt": "x", "stream": "yes"}, "stream must be true or false"),
    "many choices": (COMPLETIONS, {"prompt": "x", "n": 1000}, "n must be a whole number"),
    "stop as number": (COMPLETIONS, {"prompt": "x", "stop": 3}, "stop must be"),
    "options as list": (COMPLETIONS, {"prompt": "x", "stream_options": []}, "stream_options must be an object"),
    "tools": (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools is not supported"),
    "penalties": (COMPLETIONS, {"prompt": "x", "presence_penalty": 0.5}, "presence_penalty is not supported"),
    "repetition": (COMPLETIONS, {"prompt": "x", "repetition_penalty": 1.1}, "repetition_penalty is not supported"),
    "log probabilities": (COMPLETIONS, {"prompt": "x", "logprobs": 0.5}, "logprobs is not supported"),
    "stop tokens as text": (COMPLETIONS, {"prompt": "x", "stop_token_ids": "a"}, "stop_token_ids must be a list"),
    "a stop token below zero": (COMPLETIONS, {"prompt": "x", "stop_token_ids": [-1]}, "stop_token_ids must be a list"),
    "JSON mode": (COMPLETIONS, {"prompt": "x", "response_format": {"type": "json_object"}}, "not supported here"),
    "a long prompt": (COMPLETIONS, {"prompt": "x" * 500}, "500 tokens, and 500 is the most"),
    "a long answer": (COMPLETIONS, {"prompt": "x", "max_tokens": 500}, "more than the 500"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_in_one_line(serve: Serve, name: str) -> None:
    path, body, message = BAD[name]

    async def scenario(served: Any) -> None:
        for stream in ({}, {"stream": True}) if "stream" not in body else ({},):
            status, answer = await served.ask(path, body | stream)
            assert status == 400
            assert message in answer["error"]["message"]
            assert "\n" not in answer["error"]["message"]
            assert answer["error"]["type"] == "invalid_request_error"

    serve(scenario)


@pytest.mark.parametrize("fields", [{"max_tokens": 500}, {"max_tokens": 500, "stream": True}, {"long": True}])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_what_is_too_long_is_refused_by_the_name_it_came_under(
    serve: Serve, path: str, fields: dict[str, object]
) -> None:
    text = "x" * (600 if fields.get("long") else 1)
    given = {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}

    async def scenario(served: Any) -> None:
        status, answer = await served.ask(path, {**given, **fields})
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert answer["error"]["param"] == next(iter(given))

    serve(scenario)


def test_an_empty_chat_is_refused_by_its_name(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(served: Any) -> None:
        monkeypatch.setattr(served.model, "chat", lambda messages: [])
        _, answer = await served.ask(CHAT, {"messages": [{"role": "user", "content": ""}]})
        assert answer["error"]["param"] == "messages"
        _, answer = await served.ask(COMPLETIONS, {"prompt": ""})
        assert answer["error"]["param"] == "prompt"

    serve(scenario)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(serve: Serve, body: bytes) -> None:
    async def scenario(served: Any) -> None:
        async with served.session.post(served.url + COMPLETIONS, data=body) as response:
            assert response.status == 400
            assert "JSON" in (await response.json())["error"]["message"]

    serve(scenario)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_is_not_compressed_as_it_says_is_refused(
    serve: Serve, coding: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(served: Any) -> None:
        headers = {"Content-Encoding": coding}
        async with served.session.post(served.url + COMPLETIONS, data=b'{"prompt": "x"}', headers=headers) as response:
            assert response.status == 400
            message = (await response.json())["error"]["message"]
            assert message.startswith("the body cannot be read: ")
            assert "\n" not in message

    serve(scenario)
    assert caplog.text == ""


HALVES = {
    "the first half": rb'{"prompt": "x \ud83c"}',
    "the second, deep inside": rb'{"prompt": "x", "chat_template_kwargs": {"a": [{"b": "\uDF89"}]}}',
    "in a name": rb'{"prompt": "x", "\ud83c": 1}',
    "the wrong way round": rb'{"prompt": "\udf89\ud83c"}',
    "as bytes": b'{"prompt": "\xed\xa0\xbc"}',
    "in UTF-16": '{"prompt": "\ud83c"}'.encode("utf-16-le", "surrogatepass"),
}


@pytest.mark.parametrize("name", HALVES)
def test_half_of_a_character_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(
        Refusal, match=r"^the body holds '\\ud\w{3}', half of a character; cut strings between whole ones$"
    ):
        parse(HALVES[name])


@pytest.mark.parametrize("body", [rb'{"a": "\ud83c\udf89"}', '{"a": "🎉"}'.encode(), '{"a": "🎉"}'.encode("utf-16")])
def test_whole_characters_pass_however_they_are_written(body: bytes) -> None:
    assert parse(body) == {"a": "🎉"}


@given(st.dictionaries(st.text(), st.text() | st.lists(st.text())), st.booleans())
def test_what_json_says_is_what_is_read(fields: dict[str, object], escaped: bool) -> None:
    assert parse(json.dumps(fields, ensure_ascii=escaped).encode()) == fields


def test_neutral_values_of_what_is_not_supported_pass(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        neutral = {"presence_penalty": 0.0, "frequency_penalty": 0, "logit_bias": {}, "logprobs": None, "best_of": 1}
        status, _ = await served.ask(COMPLETIONS, {"prompt": "x", "max_tokens": 1, "user": "me"} | neutral)
        assert status == 200

    serve(scenario)


def test_a_large_body_is_refused(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        async with served.session.post(served.url + COMPLETIONS, data=BytesIO(b"x" * (17 * 2**20))) as response:
            assert response.status == 413
            assert "; 16777216 bytes may come" in (await response.json())["error"]["message"]

    serve(scenario)


@pytest.mark.parametrize("line", [b"NONSENSE", b"GET / HTTP/9.9", b"\x16\x03\x01\x02\x00"])
def test_what_is_no_http_is_refused_without_a_traceback(
    serve: Serve, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(served: Any) -> None:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(line + b"\r\n\r\n")
        assert b" 400 " in await reader.readline()
        writer.close()

    serve(scenario)
    assert caplog.text == ""


def test_a_request_of_several_answers_is_taken_whole(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": ["a", "b"], "n": 4, "max_tokens": 5}
        status, answer = await served.ask(COMPLETIONS, body)
        assert status == 200
        assert len(answer["choices"]) == 8
        busy = asyncio.create_task(served.ask(COMPLETIONS, body | {"max_tokens": 200}))
        while (await served.engine.stats()).running < 1:
            await asyncio.sleep(0.001)
        status, _ = await served.ask(COMPLETIONS, body)
        assert status == 429
        assert (await busy)[0] == 200
        assert served.loop.scheduler.stats().finished == 16

    serve(scenario, pause=0.001, max_waiting=1, limits=SchedulerLimits(1, 64, 500))


def test_unknown_models_paths_and_methods(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        status, answer = await served.ask(COMPLETIONS, {"model": "other", "prompt": "x"})
        assert (status, answer["error"]["code"]) == (404, "model_not_found")
        status, answer = await served.ask("/v1/embeddings", {})
        assert (status, answer["error"]["message"]) == (404, "POST /v1/embeddings: Not Found")
        async with served.session.get(served.url + COMPLETIONS) as response:
            assert response.status == 405
            assert response.headers["Allow"] == "POST"
        async with served.session.get(served.url + "/v1/models/letters") as response:
            assert (await response.json())["max_model_len"] == 500

    serve(scenario)


def test_the_key_is_asked_for_everywhere_but_health(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer sécret"}):
            status, answer = await served.ask(COMPLETIONS, {"prompt": "x"}, **headers)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        status, _ = await served.ask(COMPLETIONS, {"prompt": "x"}, Authorization="Bearer secret")
        assert status == 200
        async with served.session.get(served.url + "/health") as response:
            assert response.status == 200

    serve(scenario, api_key="secret")


def test_a_full_queue_asks_to_come_back(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "x", "max_tokens": 200}
        tasks = []
        for running_ones in (1, 1):
            tasks.append(asyncio.create_task(served.ask(COMPLETIONS, body)))
            while (await served.engine.stats()).running < running_ones:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        async with served.session.post(served.url + COMPLETIONS, json=body) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
        assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200]

    serve(scenario, pause=0.002, max_waiting=1, limits=SchedulerLimits(1, 64, 500))


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_request(serve: Serve, stream: bool) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "x", "max_tokens": 450, "stream": stream}
        with pytest.raises(asyncio.TimeoutError):
            async with served.session.post(
                served.url + COMPLETIONS, json=body, timeout=aiohttp.ClientTimeout(total=0.2)
            ) as response:
                await response.read()
        await asyncio.wait_for(served.idle(), 2)
        assert served.loop.scheduler.stats().finished == 1

    serve(scenario, pause=0.01)


def test_a_storm_with_clients_that_leave_leaks_nothing(serve: Serve) -> None:
    random = Random(1)

    async def one(served: Any, index: int) -> None:
        prompt = [0] * random.randint(0, 20) + [index % 50]
        count = random.randint(5, 60)
        body = {"prompt": prompt, "max_tokens": count, "seed": 0, "stream": random.random() < 0.5}
        await asyncio.sleep(random.random() * (0 if index < 60 else 0.4))
        leaves = random.random() < 0.3
        try:
            timeout = aiohttp.ClientTimeout(total=random.uniform(0.001, 0.05) if leaves else 60)
            async with served.session.post(served.url + COMPLETIONS, json=body, timeout=timeout) as response:
                answer = await response.text()
                assert response.status == 200
        except TimeoutError:
            assert leaves
        else:
            if not body["stream"]:
                assert served.expect(prompt, count) in answer

    async def scenario(served: Any) -> None:
        await asyncio.gather(*(one(served, index) for index in range(120)))

    serve(scenario, pause=0.0005)


def test_a_closed_engine_is_unavailable(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        await asyncio.to_thread(served.engine.close)
        async with served.session.get(served.url + "/health") as response:
            assert response.status == 503
            assert "closed" in (await response.json())["error"]["message"]
        status, answer = await served.ask(COMPLETIONS, {"prompt": "x"})
        assert (status, answer["error"]["type"]) == (503, "unavailable_error")

    serve(scenario, closes=True)


@pytest.mark.parametrize("failure", [BackendError("the process died"), PluginError("their scheduler failed")])
def test_a_failed_engine_is_no_fault_of_the_request(serve: Serve, failure: VeloError) -> None:
    async def scenario(served: Any) -> None:
        served.engine.fail(failure)
        for path in (COMPLETIONS, CHAT):
            status, answer = await served.ask(path, {"prompt": "x", "messages": [{"role": "user", "content": "x"}]})
            assert (status, answer["error"]["message"]) == (503, str(failure))
        async with served.session.get(served.url + "/health") as response:
            assert response.status == 503

    serve(scenario, closes=True)


def test_an_address_in_use_is_one_line(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        port = int(served.url.rsplit(":", 1)[1])
        with pytest.raises(VeloError, match=rf"cannot listen on 127\.0\.0\.1:{port}"):
            async with running(Service(served.engine, served.model, 500), port=port):
                raise AssertionError("two servers on one port")

    serve(scenario)


def test_a_client_that_leaves_as_its_stream_begins_is_no_failure(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    prepare = web.StreamResponse.prepare

    async def too_late(self: web.StreamResponse, request: web.Request) -> Any:
        if self.content_type == "text/event-stream" and request.transport:
            request.transport.close()
        return await prepare(self, request)

    monkeypatch.setattr(web.StreamResponse, "prepare", too_late)

    async def scenario(served: Any) -> None:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await served.ask(COMPLETIONS, {"prompt": "x", "max_tokens": 50, "stream": True})

    serve(scenario, pause=0.001)
    assert caplog.text == ""

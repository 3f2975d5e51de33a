"""What only some engines can be asked for: penalties, log probabilities, tokens that end an answer; and the time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from aiohttp import web

Serve = Callable[..., None]
ABLE = {"abilities": frozenset({"penalties", "logprobs"})}
GREEDY = {"temperature": 0, "seed": 0}
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


def client(served: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0)


def value(served: Any, letter: str) -> float:
    return float(-served.model.encode(letter)[0] / 40)


def test_a_chat_gives_each_token_its_log_probability(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        async with client(served) as ask:
            asked: dict[str, Any] = {"model": "letters", "messages": [{"role": "user", "content": "hey"}]}
            asked |= {"max_tokens": 9, "seed": 0, "logprobs": True}
            whole = await ask.chat.completions.create(**asked)
            choice = whole.choices[0]
            assert choice.logprobs
            assert choice.logprobs.content
            assert "".join(each.token for each in choice.logprobs.content) == choice.message.content
            assert [each.logprob for each in choice.logprobs.content] == [
                value(served, each.token) for each in choice.logprobs.content
            ]
            assert bytes(choice.logprobs.content[0].bytes or ()).decode() == choice.logprobs.content[0].token
            streamed = []
            async for event in await ask.chat.completions.create(**asked, stream=True):
                found = event.choices[0].logprobs
                streamed += (found.content or []) if found else []
            assert [each.token for each in streamed] == [each.token for each in choice.logprobs.content]

    serve(scenario, **ABLE)


def test_a_completion_says_where_each_token_stands(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": ["go", "hey"], "max_tokens": 12, "n": 2, "logprobs": 0, **GREEDY}
        _, answer = await served.ask(COMPLETIONS, body)
        for choice in answer["choices"]:
            found = choice["logprobs"]
            assert "".join(found["tokens"]) == choice["text"]
            assert found["text_offset"] == list(range(12))
            assert found["token_logprobs"] == [value(served, token) for token in found["tokens"]]
        async with served.session.post(served.url + COMPLETIONS, json=body | {"stream": True}) as response:
            lines = (await response.text()).split("\n\n")[:-2]
        offsets: dict[int, list[int]] = {}
        for line in lines:
            choice = json.loads(line.removeprefix("data: "))["choices"][0]
            offsets.setdefault(choice["index"], []).extend(choice["logprobs"]["text_offset"])
        assert offsets == {index: list(range(12)) for index in range(4)}

    serve(scenario, pause=0.001, **ABLE)


def test_the_likeliest_beside_each_token(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        _, answer = await served.ask(COMPLETIONS, {"prompt": "go", "max_tokens": 5, "logprobs": 2, **GREEDY})
        (choice,) = answer["choices"]
        assert choice["logprobs"]["top_logprobs"] == [
            {letter: 0.0, served.model.decode([(served.model.encode(letter)[0] + 1) % 50]): -1.0}
            for letter in choice["text"]
        ]
        body = {"messages": [{"role": "user", "content": "hey"}], "max_tokens": 3, "logprobs": True, "top_logprobs": 2}
        _, answer = await served.ask(CHAT, body | GREEDY)
        for entry in answer["choices"][0]["logprobs"]["content"]:
            assert [each["logprob"] for each in entry["top_logprobs"]] == [0.0, -1.0]
            assert entry["top_logprobs"][0]["token"] == entry["token"]
            assert bytes(entry["top_logprobs"][1]["bytes"]).decode() == entry["top_logprobs"][1]["token"]

    serve(scenario, **ABLE)


def test_tokens_held_back_for_a_stop_string_keep_their_log_probabilities(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 30)
        body = {"prompt": "go", "max_tokens": 30, "stop": [text[9:13]], "logprobs": 0, "stream": True, **GREEDY}
        tokens = []
        async with served.session.post(served.url + COMPLETIONS, json=body) as response:
            for line in (await response.text()).split("\n\n")[:-2]:
                tokens += json.loads(line.removeprefix("data: "))["choices"][0]["logprobs"]["tokens"]
        assert "".join(tokens) == text[:13], "those of the stop string were produced, and are counted"

    serve(scenario, pause=0.001, **ABLE)


def test_who_asks_for_none_gets_none_beside_who_does(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "go", "max_tokens": 40, **GREEDY}
        answers = await asyncio.gather(*(served.ask(COMPLETIONS, body | more) for more in ({}, {"logprobs": 0}, {})))
        found = [answer["choices"][0]["logprobs"] for _, answer in answers]
        assert found[0] is found[2] is None
        assert len(found[1]["tokens"]) == 40

    serve(scenario, pause=0.001, **ABLE)


@pytest.mark.parametrize(
    ("path", "more", "message"),
    [
        (CHAT, {"top_logprobs": 3}, "top_logprobs asks for more of what logprobs, true, asks for"),
        (CHAT, {"logprobs": True, "top_logprobs": 21}, "top_logprobs must be a whole number from 0 to 20"),
        (CHAT, {"logprobs": 1}, "logprobs must be true or false"),
        (COMPLETIONS, {"logprobs": 21}, "logprobs must be a whole number from 0 to 20"),
        (COMPLETIONS, {"logprobs": "all"}, "logprobs must be a whole number"),
        (COMPLETIONS, {"presence_penalty": 3}, "presence_penalty must be a number from -2 to 2"),
        (COMPLETIONS, {"repetition_penalty": 0}, "repetition_penalty must be a number from 0.01"),
    ],
)
def test_even_an_able_engine_has_bounds(serve: Serve, path: str, more: dict[str, object], message: str) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "x"} if path == COMPLETIONS else {"messages": [{"role": "user", "content": "x"}]}
        status, answer = await served.ask(path, body | {"max_tokens": 2} | more)
        assert (status, answer["error"]["param"]) == (400, next(reversed(more)))
        assert message in answer["error"]["message"]

    serve(scenario, **ABLE)


def test_penalties_reach_the_engine(serve: Serve) -> None:
    seen = []

    async def scenario(served: Any) -> None:
        add = served.loop.scheduler.add

        def spy(sequence: Any) -> None:
            seen.append(sequence.sampling)
            add(sequence)

        served.loop.scheduler.add = spy
        wishes = {"frequency_penalty": 0.5, "presence_penalty": -1, "repetition_penalty": 1.2}
        assert (await served.ask(COMPLETIONS, {"prompt": "x", "max_tokens": 2} | wishes))[0] == 200
        (params,) = seen
        assert {name: getattr(params, name) for name in wishes} == wishes

    serve(scenario, **ABLE)


def test_the_authors_way_unless_a_request_says_otherwise(serve: Serve) -> None:
    seen = []

    async def scenario(served: Any) -> None:
        add = served.loop.scheduler.add

        def spy(sequence: Any) -> None:
            seen.append((sequence.sampling.temperature, sequence.sampling.top_k, sequence.sampling.top_p))
            add(sequence)

        served.loop.scheduler.add = spy
        for more in ({}, {"temperature": 0, "top_p": 0.5}, {"temperature": None, "top_k": 0}):
            await served.ask(COMPLETIONS, {"prompt": "x", "max_tokens": 1} | more)
        assert seen == [(0.6, 20, 1.0), (0.0, 20, 0.5), (0.6, 0, 1.0)]

    serve(scenario, defaults={"temperature": 0.6, "top_k": 20})


@pytest.mark.parametrize("ignoring", [False, True])
def test_a_stop_token_of_the_requests_own(serve: Serve, ignoring: bool) -> None:
    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 40)
        stop = served.model.encode(text[20])[0]
        body = {"prompt": "go", "max_tokens": 40, "stop_token_ids": [stop], "ignore_eos": ignoring, **GREEDY}
        _, answer = await served.ask(COMPLETIONS, body)
        assert answer["choices"][0]["text"] == text[: text.index(text[20])]
        assert answer["choices"][0]["finish_reason"] == "stop"

    serve(scenario)


def test_the_switches_of_a_chat_template(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"messages": [{"role": "user", "content": "hey"}], "max_tokens": 6, **GREEDY}
        _, answer = await served.ask(CHAT, body | {"chat_template_kwargs": {"think": False}})
        assert answer["choices"][0]["message"]["content"] == served.expect(served.model.encode("thinkuheya"), 6)
        for wrong in ("think", {"self": 1}, {"messages": []}):
            status, answer = await served.ask(CHAT, body | {"chat_template_kwargs": wrong})
            assert (status, answer["error"]["param"]) == (400, "chat_template_kwargs")

    serve(scenario)


def test_who_leaves_while_an_event_is_written_is_no_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write, written = web.StreamResponse.write, []

    async def gone(self: web.StreamResponse, data: Any) -> None:
        written.append(data)
        if len(written) > 3:
            raise ConnectionResetError("Cannot write to closing transport")
        await write(self, data)

    monkeypatch.setattr(web.StreamResponse, "write", gone)

    async def scenario(served: Any) -> None:
        body = {"prompt": "go", "max_tokens": 400, "stream": True}
        async with served.session.post(served.url + COMPLETIONS, json=body) as response:
            await response.read()
        await asyncio.wait_for(served.idle(), 2)

    serve(scenario, pause=0.002)
    assert not caplog.records


def test_a_request_that_takes_too_long_ends(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": "x", "max_tokens": 400}
        status, answer = await served.ask(COMPLETIONS, body)
        assert (status, answer["error"]["code"]) == (504, "request_timeout")
        assert answer["error"]["message"] == "the request has taken 0.1 s, as long as it may"
        async with served.session.post(served.url + COMPLETIONS, json=body | {"stream": True}) as response:
            assert response.status == 200
            *pieces, last, done, _ = (await response.text()).split("\n\n")
        assert pieces
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "request_timeout"
        assert done == "data: [DONE]"
        await asyncio.wait_for(served.idle(), 2)

    serve(scenario, pause=0.005, most_seconds=0.1)


def test_a_body_that_never_ends_is_not_waited_for(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 504")
        writer.close()

    serve(scenario, most_seconds=0.1)


def test_a_reader_that_does_not_read_is_let_go(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer fills every buffer on the way; then writing waits, for as long as a request may take."""
    monkeypatch.setattr("velollm_core.serving.service.FAREWELL_SECONDS", 0.1)
    monkeypatch.setattr("velollm_core.serving.documents.Documents._kind", lambda self, form: "x" * 500_000)

    async def scenario(served: Any) -> None:
        host, port = served.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1)
        body = json.dumps({"prompt": "x", "max_tokens": 100, "stream": True}).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await asyncio.wait_for(_left(served), 5)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(60_000_000)
        writer.close()

    serve(scenario, pause=0.001, most_seconds=0.4)


async def _left(served: Any) -> None:
    """Wait until the server has counted one that left."""
    while True:
        async with served.session.get(served.url + "/metrics") as response:
            if 'finished_reason="abort"} 1' in await response.text():
                return
        await asyncio.sleep(0.02)

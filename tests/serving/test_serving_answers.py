"""What the server answers: text, choices, ends, usage, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.serving.answers import make_sequences
from velollm_core.serving.asked import read_completion
from velollm_core.serving.stop_strings import StopStrings
from velollm_core.testing.cache_executor import expected_tokens
from velollm_core.testing.letters import LetterModel

Serve = Callable[..., None]
GREEDY = {"temperature": 0, "seed": 0}


async def events(served: Any, path: str, body: dict[str, object]) -> list[Any]:
    """The documents of a stream; it must end with [DONE]."""
    async with served.session.post(served.url + path, json=body | {"stream": True}) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        lines = (await response.text()).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_a_completion(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"model": "letters", "prompt": "hello", "max_tokens": 9} | GREEDY
        status, answer = await served.ask("/v1/completions", body)
        assert status == 200
        assert answer["object"] == "text_completion"
        assert answer["choices"] == [
            {
                "index": 0,
                "text": served.expect(served.model.encode("hello"), 9),
                "finish_reason": "length",
                "logprobs": None,
            }
        ]
        assert answer["usage"] == {
            "prompt_tokens": 5,
            "completion_tokens": 9,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    serve(scenario)


def test_a_chat_streams_role_text_reason_and_usage(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        messages = [{"role": "system", "content": "be"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
        body = {"messages": messages, "max_completion_tokens": 7, "stream_options": {"include_usage": True}} | GREEDY
        got = await events(served, "/v1/chat/completions", body)
        assert got[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(event["choices"][0]["delta"].get("content", "") for event in got[1:-1])
        assert text == served.expect(served.model.encode("sbeuhia"), 7)
        assert [event["choices"][0]["finish_reason"] for event in got[:-1]][-1] == "length"
        assert got[-1]["choices"] == []
        assert got[-1]["usage"]["completion_tokens"] == 7
        assert {event["object"] for event in got} == {"chat.completion.chunk"}
        assert len({event["id"] for event in got}) == 1

    serve(scenario)


def test_streamed_and_whole_say_the_same(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body: dict[str, object] = {"prompt": "same", "max_tokens": 30, "temperature": 0.7, "seed": 11}
        _, whole = await served.ask("/v1/completions", body)
        streamed = await events(served, "/v1/completions", body)
        assert "".join(each["choices"][0]["text"] for each in streamed) == whole["choices"][0]["text"]

    serve(scenario)


def test_several_prompts_and_choices_keep_their_index(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": ["ab", "cde"], "n": 3, "max_tokens": 6, "seed": 4}
        _, answer = await served.ask("/v1/completions", body)
        texts = [choice["text"] for choice in answer["choices"]]
        prompts = [served.model.encode(text) for text in ("ab", "cde")]
        assert texts == [served.expect(prompt, 6, seed) for prompt in prompts for seed in (4, 5, 6)]
        assert answer["usage"]["prompt_tokens"] == 5
        assert answer["usage"]["completion_tokens"] == 36
        streamed = await events(served, "/v1/completions", body)
        for index, text in enumerate(texts):
            mine = [each["choices"][0] for each in streamed if each["choices"][0]["index"] == index]
            assert "".join(choice["text"] for choice in mine) == text
            assert mine[-1]["finish_reason"] == "length"

    serve(scenario)


def test_token_ids_are_a_prompt_too(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        _, one = await served.ask("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 4} | GREEDY)
        _, two = await served.ask("/v1/completions", {"prompt": [[1, 2, 3], [4]], "max_tokens": 4} | GREEDY)
        assert one["choices"][0]["text"] == two["choices"][0]["text"] == served.expect([1, 2, 3], 4)
        assert two["choices"][1]["text"] == served.expect([4], 4)

    serve(scenario)


def test_token_ids_are_not_handed_to_a_thread() -> None:
    making = make_sequences(read_completion({"prompt": [[1, 2, 3], [4]]}), "cmpl", LetterModel(), 100)
    with pytest.raises(StopIteration) as ended:
        making.send(None)
    assert [[each.token_ids for each in family] for family in ended.value.value] == [[[1, 2, 3]], [[4]]]


def test_a_chat_without_a_bound_fills_the_context(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        _, answer = await served.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]} | GREEDY)
        assert answer["usage"]["total_tokens"] == 500
        assert answer["choices"][0]["finish_reason"] == "length"

    serve(scenario)


def test_a_stop_token_ends_the_answer_and_is_not_shown(serve: Serve) -> None:
    token = expected_tokens(LetterModel().encode("go"), 40)[20]

    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 40)
        stop = served.model.decode([token])
        body = {"prompt": "go", "max_tokens": 40} | GREEDY
        _, answer = await served.ask("/v1/completions", body)
        assert answer["choices"][0]["text"] == text[: text.index(stop)]
        assert answer["choices"][0]["finish_reason"] == "stop"
        _, ignoring = await served.ask("/v1/completions", body | {"ignore_eos": True})
        assert ignoring["choices"][0]["text"] == text

    serve(scenario, stop_ids=frozenset({token}))


@pytest.mark.parametrize("least", [0, 20, 21, 40])
def test_so_many_tokens_come_before_one_that_ends_the_answer(serve: Serve, least: int) -> None:
    """As with vLLM the token that ends it is not counted among them."""
    tokens = expected_tokens(LetterModel().encode("go"), 40)
    stop, first = tokens[20], tokens.index(tokens[20])
    ends = next((place for place in range(least, 40) if tokens[place] == stop), None)
    assert first == 20

    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 40)
        body = {"prompt": "go", "max_tokens": 40, "min_tokens": least} | GREEDY
        _, answer = await served.ask("/v1/completions", body)
        assert answer["choices"][0]["text"] == text[:ends]
        assert answer["choices"][0]["finish_reason"] == ("length" if ends is None else "stop")

    serve(scenario, stop_ids=frozenset({stop}))


@pytest.mark.parametrize("least", [102, 103, 300])
def test_a_stop_string_counts_where_it_ends_after_the_least(serve: Serve, least: int) -> None:
    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 300)
        stop = text[100:103]
        place = text.find(stop, max(0, least - 2))
        body = {"prompt": "go", "max_tokens": 300, "min_tokens": least, "stop": stop} | GREEDY
        _, answer = await served.ask("/v1/completions", body)
        assert answer["choices"][0]["text"] == (text if place < 0 else text[:place])
        assert (place == 100) == (least == 102)

    serve(scenario)


def test_a_stop_string_ends_the_answer_wherever_it_comes(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        text = served.expect(served.model.encode("go"), 300)
        stop = text[100:103]
        assert text.index(stop) == 100
        body = {"prompt": "go", "max_tokens": 300, "stop": ["never", stop]} | GREEDY
        _, answer = await served.ask("/v1/completions", body)
        assert answer["choices"][0]["text"] == text[:100]
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 103
        streamed = await events(served, "/v1/completions", body)
        assert "".join(each["choices"][0]["text"] for each in streamed) == text[:100]

    serve(scenario, pause=0.001)


def test_a_repeated_prompt_reports_its_cached_tokens(serve: Serve) -> None:
    async def scenario(served: Any) -> None:
        body = {"prompt": list(range(41)), "max_tokens": 2} | GREEDY
        cached = []
        for extra in ({}, {}, {"cache_prompt": False}, {"cache_salt": "mine"}):
            _, answer = await served.ask("/v1/completions", body | extra)
            cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0, 40, 0, 0]

    serve(scenario)


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=10),
)
def test_stop_strings_do_not_depend_on_how_text_comes(text: str, stops: list[str], cuts: list[int]) -> None:
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    watch = StopStrings(tuple(stops))
    shown = ""
    for start, end in pairwise(bounds):
        shown += watch.feed(text[start:end])
        if watch.found:
            break
    shown += watch.finish()
    assert watch.found == any(stop in text for stop in stops)
    if not watch.found:
        assert shown == text
    else:
        ends = min(text.index(stop) + len(stop) for stop in stops if stop in text)
        assert text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)
        assert len(shown) <= ends


@given(
    early=st.text("ab", max_size=8),
    late=st.text("ab", max_size=8),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_what_is_overlooked_may_begin_a_stop_string_and_not_end_one(early: str, late: str, stops: list[str]) -> None:
    watch, text = StopStrings(tuple(stops)), early + late
    shown = "".join(watch.overlook(letter) for letter in early)
    for letter in late:
        shown += watch.feed(letter)
    shown += watch.finish()
    ends = [end for end in range(len(early) + 1, len(text) + 1) if text[:end].endswith(tuple(stops))]
    assert watch.found == bool(ends and stops)
    if watch.found:
        begins = [ends[0] - len(stop) for stop in stops if text[: ends[0]].endswith(stop)]
        assert shown == text[: min(begins)]
    else:
        assert shown == text


@pytest.mark.parametrize("stops", [(), ("xyz",)])
def test_text_without_a_stop_passes(stops: tuple[str, ...]) -> None:
    watch = StopStrings(stops)
    assert watch.feed("abx") + watch.feed("yab") + watch.feed("xy") + watch.finish() == "abxyabxy"

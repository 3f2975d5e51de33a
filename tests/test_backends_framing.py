"""Framing: whatever way the bytes are cut, the same events come out, and nothing grows without bound."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.backends.framing import Framing
from velollm_core.backends.lines import LineSplitter
from velollm_core.backends.ndjson import JsonLines
from velollm_core.backends.sse import EventStream
from velollm_core.errors import BackendError
from velollm_core.testing import read_http

RECORDINGS = Path(__file__).parent / "recordings" / "wire"
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
WIRE = st.lists(
    st.sampled_from(
        [b"data:", b"data: ", b"{}", b"[DONE]", b"\n", b"\r", b"\r\n", b":", b"id: 7", b"\xc3", b"\xa9", b" "]
    ),
    max_size=40,
).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


def events(framing: Framing, parts: list[bytes]) -> tuple[list[bytes], bool]:
    found = [event for part in parts for event in framing.feed(part)]
    return found + framing.flush(), framing.ended


@pytest.mark.parametrize("framing", [EventStream, JsonLines])
@given(data=WIRE, cuts=CUTS)
def test_any_cut_gives_the_same_events(framing: Callable[[], Framing], data: bytes, cuts: list[int]) -> None:
    assert events(framing(), pieces(data, cuts)) == events(framing(), [data])


@given(documents=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=6), cuts=CUTS)
def test_documents_survive(documents: list[dict[str, str]], cuts: list[int]) -> None:
    texts = [json.dumps(document, ensure_ascii=False).encode() for document in documents]
    stream = b"".join(b"data: %b\n\n" % text for text in texts) + b"data: [DONE]\n\n"
    assert events(EventStream(), pieces(stream, cuts)) == (texts, True)
    lines = b"".join(text + b"\n" for text in texts)
    assert events(JsonLines(), pieces(lines, cuts)) == (texts, False)


@given(ends=st.lists(LINE_ENDS, min_size=4, max_size=4), cuts=CUTS)
def test_every_line_end_is_one(ends: list[bytes], cuts: list[int]) -> None:
    lines = [b"one", b"", b"two and more", b"three"]
    data = b"".join(line + end for line, end in zip(lines, ends, strict=True))
    # A lone CR before an empty line that ends in LF is, by the bytes, one CRLF.
    expected = data.splitlines()
    splitter = LineSplitter()
    found = [line for part in pieces(data, cuts) for line in splitter.feed(part)]
    rest = splitter.flush()
    assert found + ([rest] if rest else []) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"data: one\n\n", [b"one"]),
        (b"data:one\n\n", [b"one"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": keep-alive\n\ndata: x\n\n", [b"x"]),
        (b"event: message\nid: 1\nretry: 9\ndata: x\n\n", [b"x"]),
        (b"event: error\ndata: {}\n\ndata: x\n\n", [b'{"error": {}}', b"x"]),
        (b'event: error\ndata: {"error": "gone"}\n\n', [b'{"error": "gone"}']),
        (b"event: error\n\ndata: x\n\n", [b"x"]),
        (b'{\n"error": "full"\n}\n', [b'{\n"error": "full"\n}']),
        (b'{"error": "full"}', [b'{"error": "full"}']),
        (b"{}\ndata: x\n\n", [b"x"]),
        (b"data: x\n\n{}\n", [b"x"]),
        (b"\xef\xbb\xbfdata: x\n\n", [b"x"]),
        (b"data\n\ndata:\n\ndata: x\n\n", [b"x"]),
        (b"datax: y\n\n", []),
        (b'error: {"code":500}\n\n', [b'{"code":500}']),
        (b"data: [DONE]\n\ndata: after\n\n", []),
        (b"data: x\n\ndata: [DONE]", [b"x"]),
        (b"data: no blank line", [b"no blank line"]),
        (b"data: x\r\n\r\ndata: y\r\r", [b"x", b"y"]),
        (b"", []),
    ],
)
def test_server_sent_events(data: bytes, expected: list[bytes]) -> None:
    found, ended = events(EventStream(), [data])
    assert found == expected
    assert ended == (b"[DONE]" in data)


def test_a_stream_without_a_marker_ends_with_its_events() -> None:
    framing = EventStream(end_marker=None)
    assert events(framing, [b"data: [DONE]\n\n"]) == ([b"[DONE]"], False)
    assert not framing.has_end_marker


def test_blank_lines_between_documents_are_skipped() -> None:
    assert events(JsonLines(), [b'\n{"a":1}\r\n\n  \n{"b":2}']) == ([b'{"a":1}', b'{"b":2}'], False)


@pytest.mark.parametrize("framing", [JsonLines(1000), EventStream(max_event=1000)])
def test_an_endless_line_is_refused(framing: Framing) -> None:
    with pytest.raises(BackendError, match="longer than 1000 bytes") as raised:
        list(map(framing.feed, [b"data: " + b"x" * 50] * 100))
    assert raised.value.kind == "malformed"


def test_an_endless_event_is_refused() -> None:
    framing = EventStream(max_event=1000)
    with pytest.raises(BackendError, match="longer than 1000 bytes"):
        list(map(framing.feed, [b"data: " + b"x" * 50 + b"\n"] * 100))


def test_a_long_line_in_small_pieces_is_joined_once() -> None:
    splitter = LineSplitter()
    assert not [line for _ in range(10_000) for line in splitter.feed(b"x" * 64)]
    assert [len(line) for line in splitter.feed(b"\n")] == [640_000]


@pytest.mark.parametrize("name", ["v1_chat_stream", "v1_completions_stream"])
@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
def test_recorded_event_streams(name: str, size: int) -> None:
    body = read_http(RECORDINGS / f"{name}.http").body
    found, ended = events(EventStream(), [body[start : start + size] for start in range(0, len(body), size)])
    assert ended
    assert found == [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]


@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
def test_recorded_json_lines(size: int) -> None:
    body = read_http(RECORDINGS / "ollama_generate_stream.http").body
    found, _ = events(JsonLines(), [body[start : start + size] for start in range(0, len(body), size)])
    assert found == body.splitlines()
    assert json.loads(found[-1])["done"] is True

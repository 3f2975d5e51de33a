"""Recorded requests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.backends.request import Message
from velollm_core.benchmark.dataset import Dataset, read_dataset
from velollm_core.benchmark.load import Entry
from velollm_core.errors import VeloError


def read(tmp_path: Path, *entries: object, array: bool = False) -> Dataset:
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(entries) if array else "\n".join(json.dumps(entry) for entry in entries))
    return read_dataset(path)


@pytest.mark.parametrize("array", [False, True])
def test_prompts_and_chats(tmp_path: Path, array: bool) -> None:
    chat = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]}
    found = read(tmp_path, {"prompt": "hello", "max_tokens": 7}, chat, array=array)
    assert found.entries == (
        Entry("hello", max_tokens=7),
        Entry(messages=(Message("system", "be brief"), Message("user", "hi"))),
    )
    assert found.times == ()


def test_sharegpt_ends_with_the_last_question(tmp_path: Path) -> None:
    turns = [("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d" * 40)]
    found = read(
        tmp_path, {"conversations": [{"from": name, "value": text} for name, text in turns]}, {"conversations": []}
    )
    (entry,) = found.entries
    assert [message.content for message in entry.messages] == ["a", "b", "c"]
    assert entry.messages[-1].role == "user"
    assert entry.max_tokens == 10


def test_the_names_that_files_give_to_who_speaks(tmp_path: Path) -> None:
    """ShareGPT's own files hold all of these."""
    names = ("system", "user", "chatgpt", "human", "bing", "human", "bard", "user")
    found = read(tmp_path, {"conversations": [{"from": name, "value": name} for name in names]})
    roles = [message.role for message in found.entries[0].messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant", "user"]


def test_messages_as_openai_writes_them(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "x"}}]
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "42"},
        {"role": "assistant", "content": "it is 42"},
    ]
    (entry,) = read(tmp_path, {"messages": messages}).entries
    assert [(message.role, message.content) for message in entry.messages] == [
        ("system", "be brief"),
        ("user", "look"),
        ("assistant", ""),
        ("user", "42"),
    ]
    with pytest.raises(VeloError, match="holds no requests"):
        read(tmp_path, {"messages": [{"role": "assistant", "content": "hello?"}]})


def test_line_ends_within_a_text_are_no_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    texts = ["a\u2028b", "c\x85d", "e\x0bf"]
    lines = [json.dumps({"prompt": text}, ensure_ascii=False) for text in texts]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines[:2], "", lines[2]]).replace("\\u000b", "\u2029").encode())
    assert [entry.prompt for entry in read_dataset(path).entries] == ["a\u2028b", "c\x85d", "e\u2029f"]


def test_one_object_spread_over_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"prompt": "a"}, {"prompt": "b"}], indent=2))
    assert len(read_dataset(path).entries) == 2


def test_traces_have_times_and_lengths(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {"timestamp": 5000, "input_length": 100, "output_length": 20},
        {"timestamp": 5500, "input_length": 10, "output_length": 3},
    )
    assert found.times == (0.0, 0.5)
    assert [entry.max_tokens for entry in found.entries] == [20, 3]
    assert len(found.entries[0].prompt) >= 400


def test_times_in_seconds(tmp_path: Path) -> None:
    assert read(tmp_path, {"at": 2, "prompt": "x"}, {"at": 3.5, "prompt": "y"}).times == (0.0, 1.5)
    late_first = read(tmp_path, {"at": 9, "prompt": "late"}, {"at": 3, "prompt": "early"})
    assert (late_first.times, [entry.prompt for entry in late_first.entries]) == ((0.0, 6.0), ["early", "late"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no requests"),
        ("x", "is neither JSON nor JSON lines"),
        ("[1]", "entry 1 is no request"),
        ('{"messages": [{"role": "dog", "content": "woof"}]}', "entry 1 is no request"),
        ('{"prompt": 3}', "entry 1 is no request"),
        ('{"question": "?"}', "has neither prompt, messages, conversations nor input_length"),
        ('{"prompt": "a"}\n{"prompt": "b"\n{"prompt": "c"}', "line 2 is not JSON"),
        ('{"prompt": "a"}\n\n[' + "[" * 100_000, "line 3 is not JSON"),
        ('{"prompt": "a", "max_tokens": 1e999}', "not a number of tokens"),
        ('{"prompt": "a", "max_tokens": "many"}', "not a number of tokens"),
        ('{"input_length": -3}', "not a number of tokens"),
        ('{"input_length": 1e15}', "not a number of tokens"),
        ('{"prompt": "a", "timestamp": "2026-01-01"}', "is not a time"),
        ('{"prompt": "a", "at": NaN}', "is not a time"),
        ('{"messages": "hello"}', "entry 1 is no request"),
        ('{"messages": [{"content": "no role"}]}', "'role' is missing or not known"),
        ('{"messages": [{"role": "dog", "content": "woof"}]}', "'dog' is missing or not known"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(VeloError, match=message) as caught:
        read_dataset(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(VeloError, match="cannot be read"):
        read_dataset(tmp_path / "none")


def test_another_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes('{"prompt": "é"}'.encode("latin-1"))
    with pytest.raises(VeloError, match=r"is not UTF-8 \(byte 12\)"):
        read_dataset(path)


values = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "prompt",
                    "messages",
                    "conversations",
                    "role",
                    "content",
                    "from",
                    "value",
                    "timestamp",
                    "input_length",
                    "max_tokens",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(values, max_size=3))
def test_anything_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, entries: list[object]) -> None:
    path = tmp_path_factory.mktemp("data") / "d.json"
    path.write_text(json.dumps(entries))
    try:
        assert read_dataset(path).entries
    except VeloError:
        return

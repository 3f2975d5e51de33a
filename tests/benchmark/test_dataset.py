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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no requests"),
        ("x", "is neither JSON nor JSON lines"),
        ("[1]", "entry 1 is no request"),
        ('{"messages": [{"role": "dog", "content": "woof"}]}', "entry 1 is no request"),
        ('{"prompt": 3}', "entry 1 is no request"),
        ('{"question": "?"}', "entry 1 is no request"),
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

"""What recorded servers say of themselves, and where that differs from what was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.process import _text
from velollm_llamacpp.readback import differences, reported

from velollm_core.backends.setting import Value


def log(path: Path) -> list[str]:
    return [_text(line) for line in path.read_text().splitlines()]


def test_a_real_log_tells_all_settings(recordings: Path) -> None:
    assert reported({"total_slots": 4}, [], log(recordings / "load_unified.stderr")) == {
        "--ctx-size": 4096,
        "--batch-size": 2048,
        "--ubatch-size": 512,
        "--threads": 1,
        "--threads-batch": 1,
        "--cache-type-k": "f16",
        "--cache-type-v": "f16",
        "--flash-attn": "auto",
        "--kv-unified": True,
        "--load-mode": "mmap",
        "--cache-ram": 8192,
        "--parallel": 4,
    }


def test_the_draft_does_not_speak_for_the_model(recordings: Path) -> None:
    found = reported({"total_slots": 2}, [], log(recordings / "load_draft.stderr"))
    assert (found["--ctx-size"], found["--kv-unified"], found["--parallel"]) == (2048, False, 2)


def test_without_a_log_only_what_is_sure_is_told() -> None:
    slot = {"id": 0, "n_ctx": 1024}
    assert reported({"total_slots": 1}, [slot], ()) == {"--parallel": 1, "--ctx-size": 1024}
    assert reported({"total_slots": 2}, [slot, slot], ()) == {"--parallel": 2}
    assert reported({}, [], ()) == {}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"--ctx-size": 3000, "--parallel": 7}, {"--ctx-size": 3584, "--parallel": 7}),
        ({"--ctx-size": 300}, {"--ctx-size": 512, "--batch-size": 300, "--ubatch-size": 300}),
        ({"--ctx-size": 300, "--batch-size": 2048, "--ubatch-size": 512}, {"--batch-size": 300, "--ubatch-size": 300}),
        ({"--ctx-size": 0}, {"--ctx-size": 131072}),
        ({"--batch-size": 256, "--ubatch-size": 512}, {"--ctx-size": 4096, "--batch-size": 256, "--ubatch-size": 256}),
        ({"--parallel": -1, "--threads": -1}, {"--parallel": 4, "--threads": 8}),
        ({"--load-mode": "auto"}, {"--load-mode": "mmap"}),
        ({"--n-gpu-layers": 999}, {"--n-gpu-layers": 33}),
        ({"--fit": "off"}, {}),
    ],
)
def test_the_servers_own_rounding_is_no_difference(asked: dict[str, Value], found: dict[str, Value]) -> None:
    assert differences(asked, found) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"--ctx-size": 4096}, {"--ctx-size": 2048, "--parallel": 1}),
        ({"--ctx-size": 4096}, {"--ctx-size": 16384, "--parallel": 4}),
        ({"--flash-attn": "on"}, {"--flash-attn": "off"}),
        ({"--cache-type-k": "q8_0"}, {"--cache-type-k": "f16"}),
        ({"--kv-unified": False}, {"--kv-unified": True}),
        ({"--threads": 2}, {"--threads": 4}),
        ({"--n-gpu-layers": 20}, {"--n-gpu-layers": 33}),
        ({"--batch-size": 512}, {"--batch-size": 2048, "--ctx-size": 4096}),
    ],
)
def test_another_value_is_a_difference(asked: dict[str, Value], found: dict[str, Value]) -> None:
    (line,) = differences(asked, found)
    name = next(iter(asked))
    assert line == f"{name} was set to {asked[name]} and reads back as {found[name]}"


@given(
    st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8)),
    st.lists(st.dictionaries(st.text(max_size=5), st.integers())),
    st.lists(st.text(max_size=80)),
)
def test_any_answer_is_read(props: dict[str, Any], slots: list[dict[str, Any]], lines: list[str]) -> None:
    differences({"--ctx-size": 5}, reported(props, slots, lines))

"""Per-model parameters, refused before Ollama would take them."""

from __future__ import annotations

import pytest
from velollm_ollama.parameters import check_parameters, parse_parameter, parse_shown

from velollm_core.errors import VeloError


def test_good_parameters_pass_as_they_are() -> None:
    good: dict[str, object] = {"num_ctx": 8192, "temperature": 0, "use_mmap": False, "stop": "###", "num_gpu": -1}
    assert check_parameters(good) == good


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_ctx", "many", "whole number"),
        ("num_ctx", 3, "least is 4"),
        ("num_ctx", 2**40, "most"),
        ("num_ctx", 8192.5, "whole number"),
        ("num_ctx", True, "whole number"),
        ("use_mmap", 1, "true or false"),
        ("temperature", float("nan"), "a number"),
        ("stop", 3, "text"),
        ("num_predict", 0, "without end"),
        ("no_such", 5, "no parameter"),
        ("low_vram", True, "no effect"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: object, words: str) -> None:
    with pytest.raises(VeloError, match=words) as caught:
        check_parameters({name: value})
    assert name in str(caught.value)


def test_everything_wrong_is_said_at_once() -> None:
    with pytest.raises(VeloError, match=r"num_ctx.*use_mmap"):
        check_parameters({"num_ctx": "x", "use_mmap": 2})


def test_texts_from_a_command_line() -> None:
    assert parse_parameter("num_ctx", "8192") == 8192
    assert parse_parameter("num_ctx", "many") == "many"
    assert parse_parameter("temperature", "0.5") == 0.5
    assert parse_parameter("use_mmap", "false") is False
    assert parse_parameter("other", "1") == "1"


def test_parameters_as_show_prints_them() -> None:
    lines = ["num_batch                      256", "num_ctx                        1024"]
    text = "\n".join([*lines, 'stop                           "<|im_end|>"'])
    assert parse_shown(text) == {"num_batch": 256, "num_ctx": 1024, "stop": "<|im_end|>"}
    assert parse_shown("") == {}

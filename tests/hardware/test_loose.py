"""Values out of documents that nobody vouches for: nothing raises, nothing is guessed."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware import loose

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("absent", ["N/A", "[N/A]", "[Not Supported]", "Unknown Error", "None", "", "  ", "\x1b", "-"])
def test_what_tools_write_for_unknown_is_none(absent: str) -> None:
    assert loose.text(absent) is None


def test_text_cannot_reach_the_terminal() -> None:
    assert loose.text("NVIDIA \x1b[31mH100\r\n80GB\0") == "NVIDIA [31mH100 80GB"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("81559", 81559), (" 12\n", 12), ("0x2330", 0x2330), (3.0, 3), (3.5, None), (True, None), ("max", None),
     (2**63, None), ("9" * 5000, None), (float("nan"), None), (float("inf"), None), (None, None), ("-7", -7)],
)  # fmt: skip
def test_whole(value: object, expected: int | None) -> None:
    assert loose.whole(value) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [({"value": 24560, "unit": "MB"}, "", 24560 * 2**20), ("81559 MiB", "", 81559 * 2**20), ("8 GB", "", 8 * 2**30),
     ("480", "MiB", 480 * 2**20), ({"value": "N/A", "unit": "MB"}, "", None), ("12 parsecs", "", None),
     ("-3 MiB", "", None), ("1e300 GiB", "", None), (25753026560, "", 25753026560), ({"value": {}}, "", None)],
)  # fmt: skip
def test_size(value: object, unit: str, expected: int | None) -> None:
    assert loose.size(value, unit) == expected


@pytest.mark.parametrize(
    ("document", "expected"),
    [('{"a": 1}', {"a": 1}), ("[1]", [1]), ('WARNING: no render group\n[{"a": 1}]', [{"a": 1}]), ("rubbish", None),
     ("", None), ("{" * 100_000, None), ("[\n{\n}\n]", [{}])],
)  # fmt: skip
def test_json_behind_warnings(document: str, expected: object) -> None:
    assert loose.parse_json(document) == expected


@given(JSON)
def test_nothing_raises(value: object) -> None:
    for reader in (loose.text, loose.number, loose.whole, loose.count, loose.size, loose.items):
        reader(value)
    loose.at(value, "a", 0, "b")
    whole = loose.count(value)
    assert whole is None or 0 <= whole <= loose.LARGEST


@given(st.text(max_size=300))
def test_text_is_one_bounded_line(value: str) -> None:
    line = loose.text(value)
    assert line is None or (line.isprintable() and 0 < len(line) <= loose.TEXT_LENGTH)
    loose.parse_json(value)


@given(JSON)
def test_json_is_found_again(value: object) -> None:
    document = json.dumps({"found": value}, allow_nan=True)
    assert loose.parse_json("warning: x\n" + document) is not None

"""``CUDA_VISIBLE_DEVICES`` as CUDA reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware.nvidia import mark_visible, parse_nvml
from velollm_core.hardware.visible import visible_positions

UUIDS = ("GPU-1a00", "GPU-1b00", "GPU-2c00")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (0, 1, 2)),
        ("", ()),
        ("-1", ()),
        ("0", (0,)),
        ("2,0", (2, 0)),
        (" 1 , 2 ", (1, 2)),
        ("0,9,1", (0,)),
        ("9", ()),
        ("0,-1,1", (0,)),
        ("0,0", ()),
        ("1,x,2", (1,)),
        ("1gpu", (1,)),
        ("0,GPU-1b", (0,)),
        ("GPU-2c00", (2,)),
        ("gpu-2C", (2,)),
        ("GPU-1", ()),
        ("GPU-2,GPU-1a", (2, 0)),
        ("GPU-2,GPU-9,GPU-1a", (2,)),
        ("GPU-2,GPU-2c", ()),
        ("GPU-2,0", (2,)),
        ("NoDevFiles", ()),
        (",0", ()),
    ],
)
def test_positions(value: str | None, expected: tuple[int, ...]) -> None:
    assert visible_positions(value, UUIDS) == expected


@given(st.text(alphabet="0123456789-,GPUgpu abcx+", max_size=40), st.integers(0, 5))
def test_positions_are_distinct_and_exist(value: str, count: int) -> None:
    found = visible_positions(value, UUIDS[:count])
    assert len(set(found)) == len(found)
    assert all(0 <= position < len(UUIDS[:count]) for position in found)


@given(st.text(max_size=60))
def test_any_text_is_read(value: str) -> None:
    visible_positions(value, [*UUIDS, None])


@pytest.mark.parametrize(
    ("machine_name", "recording", "value"),
    [("h100", "visible_1", "1"), ("h200x2", "visible_1", "1"),
     ("h100", "visible_empty", ""), ("h200x2", "visible_empty", ""),
     ("h100", "visible_bad", "0,9"), ("h200x2", "visible_bad", "0,9"),
     ("h100", "visible_uuid", "GPU-00000000-0000-0000-0000-000000000000"),
     ("h200x2", "visible_uuid", "GPU-00000001-0000-0000-0000-000000000000")],
)  # fmt: skip
def test_real_programs_saw_as_many(recorded, nvml, machine_name: str, recording: str, value: str) -> None:
    seen = int(recorded(machine_name, recording).splitlines()[0])
    gpus = mark_visible(parse_nvml(nvml(machine_name)).gpus, value)
    assert sum(gpu.visible for gpu in gpus) == seen

"""Paged attention under Triton's interpreter against plain torch, over the whole matrix of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels need Triton, which this platform has no wheel of")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="interpreted on a CPU; see test_attention_gpu.py")

Apart = Callable[[torch.Tensor, torch.Tensor], float]
SIZES = (64, 80, 96, 128, 256)
GROUPS = (1, 2, 4, 7, 8)
PAGES = (16, 32, 64, 128)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3}


# A Latin square: every pair of head size, group and block size is met, not every triple.
MATRIX = [
    (size, group, PAGES[(row + column) % 4]) for row, size in enumerate(SIZES) for column, group in enumerate(GROUPS)
]


@pytest.mark.parametrize(("size", "group", "page"), MATRIX)
def test_decode_of_every_head_size_group_and_block_size(
    paged: Any, apart: Apart, size: int, group: int, page: int
) -> None:
    case = paged.of([page, 0, 1, page + 1], heads=group, kv_heads=1, size=size, page=page, seed=page)
    found, wanted = case.decode()
    assert apart(found, wanted) < TOLERANCE[torch.float32]
    assert not found[1].any(), "an empty sequence answers zeros"


@pytest.mark.parametrize(("size", "group", "page"), MATRIX)
def test_prefill_of_every_head_size_group_and_block_size(
    paged: Any, apart: Apart, size: int, group: int, page: int
) -> None:
    chunks, lengths = [4, 0, 1, 3], [4, 7, 1, page + 1]
    case = paged.of(lengths, chunks=chunks, heads=group, kv_heads=1, size=size, page=page, seed=page)
    assert apart(*case.prefill()) < TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    ("lengths", "size", "group"), [([600, 1, 1], 64, 4), ([300, 1, 270], 80, 3), ([530, 1, 1], 256, 8)]
)
@pytest.mark.parametrize("options", [{}, {"window": 400, "softcap": 3.0}], ids=str)
def test_a_long_sequence_is_merged_out_of_all_its_pieces(
    paged: Any, apart: Apart, lengths: list[int], size: int, group: int, options: dict[str, Any]
) -> None:
    """Three and more: of two, whoever merged too early would be put right by who comes last."""
    case = paged.of(lengths, heads=2 * group, kv_heads=2, size=size)
    assert apart(*case.decode(**options)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("size", SIZES)
def test_half_precision(paged: Any, apart: Apart, size: int) -> None:
    case = paged.of([33, 1, 40], chunks=[12, 1, 9], size=size, dtype=torch.float16)
    assert apart(*case.prefill()) < TOLERANCE[torch.float16]
    case = paged.of([33, 1, 70], size=size, dtype=torch.float16)
    assert apart(*case.decode()) < TOLERANCE[torch.float16]


@pytest.mark.parametrize(
    "options",
    [
        {"window": 1},
        {"window": 20},
        {"window": 32, "softcap": 5.0},
        {"softcap": 0.5},
        {"softcap": 50.0, "sinks": True},
        {"sinks": True},
        {"window": 17, "sinks": True},
        {"window": 1000},
        {"scale": 1.7},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_window_softcap_sinks_and_scale(paged: Any, apart: Apart, kind: str, options: dict[str, Any]) -> None:
    lengths, chunks = [3, 64, 50, 17], [3, 10, 18, 1]
    case = paged.of(lengths, chunks=chunks if kind == "prefill" else None, seed=len(str(options)))
    options = dict(options)
    if "sinks" in options:
        options["sinks"] = torch.linspace(-2, 3, 4)
    assert apart(*getattr(case, kind)(**options)) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_an_fp8_cache_with_scales(paged: Any, apart: Apart, kind: str) -> None:
    case = paged.of(
        [40, 0, 17], chunks=[12, 0, 1] if kind == "prefill" else None, cache_dtype=torch.float8_e4m3fn, seed=3
    )
    plain, _ = getattr(case, kind)()
    found, wanted = getattr(case, kind)(key_scale=0.25, value_scale=8.0)
    assert apart(found, wanted) < TOLERANCE[torch.float32]
    assert apart(plain, wanted) > 0.5, "the scales are applied"


@pytest.mark.filterwarnings(
    "ignore:overflow encountered in exp2"
)  # a sink's share of nothing is infinite, as it should
@pytest.mark.parametrize("sinks", [False, True])
def test_a_sequence_without_tokens_answers_zeros_beside_others(paged: Any, apart: Apart, sinks: bool) -> None:
    case = paged.of([0, 0, 5, 0], heads=2)
    found, wanted = case.decode(sinks=torch.ones(2) if sinks else None)
    assert apart(found, wanted) < TOLERANCE[torch.float32]
    assert not found[[0, 1, 3]].any()


def test_a_step_without_queries_launches_nothing(paged: Any) -> None:
    found, wanted = paged.of([5, 9], chunks=[0, 0]).prefill()
    assert found.shape == wanted.shape == (0, 4, 64)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_step_equals_the_reference(paged: Any, apart: Apart, data: st.DataObject) -> None:
    """Lengths, chunks, shapes and options as they come; an example that fails is shrunk to the smallest."""
    lengths = data.draw(st.lists(st.integers(0, 60), min_size=1, max_size=5))
    chunks = [data.draw(st.integers(0, min(length, 20))) for length in lengths]
    kv_heads, group = data.draw(st.integers(1, 2)), data.draw(st.sampled_from((1, 3, 4)))
    shape = {
        "heads": group * kv_heads,
        "kv_heads": kv_heads,
        "size": data.draw(st.sampled_from((64, 80))),
        "page": data.draw(st.sampled_from((16, 32))),
        "seed": data.draw(st.integers(0, 99)),
    }
    options = {"window": data.draw(st.sampled_from((0, 1, 7, 40))), "softcap": data.draw(st.sampled_from((0.0, 3.0)))}
    for case, kind in ((paged.of(lengths, chunks=chunks, **shape), "prefill"), (paged.of(lengths, **shape), "decode")):
        found, wanted = getattr(case, kind)(**options)
        if len(found):
            assert apart(found, wanted) < TOLERANCE[torch.float32]

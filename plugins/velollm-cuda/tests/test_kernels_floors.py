"""The floors of top-k, top-p and min-p under Triton's interpreter: bisection finds what sorting does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="the kernels need Triton, which this platform has no wheel of")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="interpreted on a CPU; see test_kernels_gpu.py")

from velollm_cuda.kernels import fast, reference  # noqa: E402


def rules(*rows: tuple[float, int, float, float]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Temperature, top-k, top-p and min-p of each row."""
    heat, top_k, top_p, min_p = zip(*rows, strict=True)
    return torch.tensor(heat), torch.tensor(top_k), torch.tensor(top_p), torch.tensor(min_p)


def left_in(logits: Tensor, floors: Tensor) -> Tensor:
    return logits >= floors[:, None]


ROWS = st.tuples(
    st.sampled_from([0.0, 0.2, 1.0, 3.0]),
    st.sampled_from([0, 0, 1, 2, 7, 299, 300, 1000]),
    st.sampled_from([1.0, 1.0, 0.99, 0.5, 0.01]),
    st.sampled_from([0.0, 0.0, 0.05, 1.0]),
)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.lists(ROWS, min_size=1, max_size=3), st.integers(0, 99))
def test_bisection_leaves_in_what_sorting_does(rows: list[tuple[float, int, float, float]], seed: int) -> None:
    logits = torch.randn(len(rows), 300, generator=torch.Generator().manual_seed(seed)) * 4
    mine, theirs = fast.floors(logits, *rules(*rows)), reference.floors(logits, *rules(*rows))
    assert torch.equal(left_in(logits, mine), left_in(logits, theirs))


def test_rows_longer_than_a_block_and_rows_apart_in_memory() -> None:
    logits = torch.randn(2, 9100, generator=torch.Generator().manual_seed(1))[:, :9000] * 3
    logits[0, 8999] = 20.0
    rows = rules((1.0, 3, 1.0, 0.0), (1.0, 0, 0.6, 0.0))
    mine, theirs = fast.floors(logits, *rows), reference.floors(logits, *rows)
    assert torch.equal(left_in(logits, mine), left_in(logits, theirs))
    assert left_in(logits, mine)[0].sum() == 3


def test_equal_logits_stay_or_go_together() -> None:
    logits = torch.tensor([[5.0, 3.0, 3.0, 3.0, 1.0], [2.0, 2.0, 2.0, 2.0, 2.0]])
    rows = rules((1.0, 2, 1.0, 0.0), (1.0, 1, 0.1, 1.0))
    for kernels in (fast, reference):
        kept = left_in(logits, kernels.floors(logits, *rows))
        assert kept.tolist() == [[True, True, True, True, False], [True] * 5]


def test_what_was_left_out_before_does_not_count() -> None:
    """A logit of minus infinity is no end of the range to bisect."""
    logits = torch.full((1, 50), float("-inf"))
    logits[0, [4, 9, 30]] = torch.tensor([1.0, 2.0, 0.5])
    for rows in (rules((1.0, 2, 1.0, 0.0)), rules((1.0, 0, 0.8, 0.0))):
        for kernels in (fast, reference):
            kept = left_in(logits, kernels.floors(logits, *rows))
            assert kept.nonzero()[:, 1].tolist() == [4, 9]


def test_a_floor_is_kept_to() -> None:
    logits = torch.zeros(8, 50)
    logits[:, 25:] = 0.5
    rows = torch.arange(8)
    heat, floors = torch.full((8,), 50.0), torch.full((8,), 0.5)
    for kernels in (fast, reference):
        assert kernels.gumbel_sample(logits, heat, rows, rows, floors).min() >= 25
        assert kernels.gumbel_sample(logits, heat, rows, rows).min() < 25

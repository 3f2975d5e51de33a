"""The element-wise kernels under Triton's interpreter against plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton", reason="the kernels need Triton, which this platform has no wheel of")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="interpreted on a CPU; see test_kernels_gpu.py")

from velollm_cuda.kernels import fast, reference  # noqa: E402

Apart = Callable[[Tensor, Tensor], float]
DTYPES = (torch.float32, torch.float16)
EXACT = {torch.float32: 1e-6, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws from the same seed."""
    torch.manual_seed(7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 64, 80, 130, 1024])
def test_rms_norm(apart: Apart, size: int, dtype: torch.dtype) -> None:
    wide = torch.randn(3, size + 5).to(dtype) * 3
    x, weight = wide[:, :size], torch.randn(size)
    assert apart(fast.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5)) < EXACT[dtype]
    residual = torch.randn(3, size).to(dtype)
    mine, theirs = residual.clone(), residual.clone()
    x = x.contiguous()
    found, wanted = fast.rms_norm(x, weight, 1e-5, mine), reference.rms_norm(x, weight, 1e-5, theirs)
    assert apart(found, wanted) < EXACT[dtype]
    assert torch.equal(mine, theirs)
    assert not torch.equal(mine, residual), "the residual takes the sum"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("size", "depth"), [(1, 1), (4, 64), (7, 100), (130, 1024), (9, 2048), (6, 5000)])
def test_linear_of_one_token(apart: Apart, size: int, depth: int, dtype: torch.dtype) -> None:
    padded, rows = torch.full((1, 8192), float("nan"), dtype=dtype), torch.full((size + 4, depth + 3), float("nan"))
    padded[:, :depth] = torch.randn(1, depth)
    rows[:size, :depth] = torch.randn(size, depth)
    x, weight, bias = padded[:, :depth], rows.to(dtype)[:size, :depth], torch.randn(size).to(dtype)
    assert apart(fast.linear(x, weight), reference.linear(x.float(), weight.float())) < 2 * EXACT[dtype]
    found, wanted = fast.linear(x, weight, bias), reference.linear(x.float(), weight.float(), bias.float())
    assert apart(found, wanted) < 2 * EXACT[dtype]
    assert found.shape == (1, size)
    assert found.dtype == dtype


def test_linear_of_more_is_torchs_own() -> None:
    x, weight, bias = torch.randn(3, 40), torch.randn(5, 40), torch.randn(5)
    assert torch.equal(fast.linear(x, weight, bias), reference.linear(x, weight, bias))


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # 1 / (1 + infinity) is the gate of a very low input
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 100, 1024, 1300])
@pytest.mark.parametrize("name", ["silu_mul", "gelu_mul"])
def test_gates(apart: Apart, name: str, size: int, dtype: torch.dtype) -> None:
    x = (torch.randn(2, 2 * size) * 4).to(dtype)
    assert apart(getattr(fast, name)(x), getattr(reference, name)(x)) < 2 * EXACT[dtype]


def rotary(size: int, rotated: int, *, tokens: int = 5, kv_heads: int = 2, page: int = 16, normed: bool) -> Any:
    """Arguments of `rope_store` but the caches, which are poisoned; one slot stores nothing."""
    heads = 3 * kv_heads
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size)
    tables = torch.randn(40, rotated // 2), torch.randn(40, rotated // 2)
    positions, slots = torch.randint(0, 40, (tokens,)), torch.randperm(4 * page)[:tokens]
    slots[1] = -1
    cache = torch.full((4, 2, page, kv_heads, size), float("nan"))
    norms = {"query_norm": torch.randn(size), "key_norm": torch.randn(size)} if normed else {}
    return (qkv, *tables, positions, slots), cache, heads, norms


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(
    ("size", "rotated"), [(64, 64), (80, 80), (96, 96), (128, 128), (256, 256), (96, 48), (64, 16)]
)
def test_rope_store(apart: Apart, size: int, rotated: int, normed: bool, dtype: torch.dtype) -> None:
    (qkv, *rest), cache, heads, norms = rotary(size, rotated, normed=normed)
    mine, theirs = cache.to(dtype), cache.to(dtype)
    qkv = qkv.to(dtype)
    found = fast.rope_store(qkv, *rest, mine[:, 0], mine[:, 1], heads, **norms)
    wanted = reference.rope_store(qkv, *rest, theirs[:, 0], theirs[:, 1], heads, **norms)
    assert apart(found, wanted) < EXACT[dtype]
    slots = rest[-1]
    for index, half in ((0, "keys"), (1, "values")):
        written = mine[:, index].flatten(0, 1)
        kept = slots[slots >= 0]
        assert apart(written[kept], theirs[:, index].flatten(0, 1)[kept]) < EXACT[dtype], half
        others = torch.ones(len(written), dtype=torch.bool)
        others[kept] = False
        assert written[others].isnan().all(), f"{half} beyond the slots are left alone"


def test_rope_store_packs_more_heads_than_one_program_takes(apart: Apart) -> None:
    arguments, cache, heads, _ = rotary(64, 64, kv_heads=5, normed=False)
    mine, theirs = cache.clone(), cache.clone()
    found = fast.rope_store(*arguments, mine[:, 0], mine[:, 1], heads)
    assert apart(found, reference.rope_store(*arguments, theirs[:, 0], theirs[:, 1], heads)) < 1e-6
    assert torch.equal(mine.isnan(), theirs.isnan())


def test_rope_store_scales_what_an_fp8_cache_holds() -> None:
    """Values that FP8 holds exactly: the interpreter's own rounding to FP8 is not the hardware's."""
    (qkv, cosine, sine, *rest), cache, heads, _ = rotary(64, 64, normed=False)
    qkv = (torch.randint_like(qkv, 1, 9) / 4).copysign(qkv)
    cosine, sine = torch.ones_like(cosine), torch.zeros_like(sine)
    mine, theirs = (cache.to(torch.float8_e4m3fn) for _ in range(2))
    scales = {"key_scale": 0.25, "value_scale": 2.0}
    for kernels, held in ((fast, mine), (reference, theirs)):
        kernels.rope_store(qkv, cosine, sine, *rest, held[:, 0], held[:, 1], heads, **scales)
    assert torch.equal(mine.view(torch.uint8), theirs.view(torch.uint8))
    slot = int(rest[1][0])
    key = qkv[0].view(-1, 64)[heads]
    assert torch.equal(mine[slot // 16, 0, slot % 16, 0].float(), key * 4)


def test_what_fp8_cannot_hold_is_cut_off() -> None:
    kept = reference.narrowed(torch.tensor([1000.0, -1000.0, 2.0]), 1.0, torch.float8_e4m3fn)
    assert kept.float().tolist() == [448.0, -448.0, 2.0]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 130),
    page=st.sampled_from([16, 64]),
    seed=st.integers(0, 1000),
)
def test_slots_of_decodes_and_padding(batch: int, page: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    count = 140
    last, lengths = torch.randint(0, 999, (count + 1,), generator=random), torch.randint(0, 200, (count + 1,)).int()
    table = torch.randint(0, 5000, (count + 1, 14), generator=random).int()[:, :13]
    rows = torch.randperm(count, generator=random)[:batch].int()
    rows[torch.rand(batch, generator=random) < 0.2] = count
    outcomes = []
    for kernels in (fast, reference):
        state = last.clone(), lengths.clone()
        tokens, positions, slots = (torch.full((batch,), -77) for _ in range(3))
        grown = torch.full((batch,), -77, dtype=torch.int32)
        kernels.next_slots(rows, state[1], table, page, slots)
        kernels.begin_decode(rows, *state, tokens, positions, grown)
        chosen = torch.arange(batch) + 10_000
        kernels.end_decode(rows, *state, chosen, grown)
        outcomes.append((tokens, positions, slots, grown, *state))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*outcomes, strict=True))
    padding = rows == count
    assert (outcomes[0][2][padding] == -1).all()
    assert not outcomes[0][3][padding].any()
    assert outcomes[0][4][count] == last[count]
    assert outcomes[0][5][count] == lengths[count]


def test_greedy_takes_the_largest_and_of_equals_the_first() -> None:
    logits = torch.randn(5, 9001)
    logits[2, [8000, 17, 5000]] = 50.0
    logits[3] = -1e30
    logits[4, -1] = 60.0
    rows = torch.arange(5)
    found = fast.gumbel_sample(logits, torch.zeros(5), rows, rows)
    assert found.tolist() == logits.argmax(-1).tolist()
    assert found[2:].tolist() == [17, 0, 9000]


def test_a_rows_draw_is_its_own() -> None:
    """The same seed and position draw the same token whatever stands beside; others draw others."""
    logits, heat = torch.randn(1, 5000).expand(6, -1), torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    seeds, positions = torch.tensor([3, 4, 3, 3, 3, 9]), torch.tensor([5, 5, 5, 5, 6, 5])
    found = fast.gumbel_sample(logits, heat, seeds, positions).tolist()
    assert found[0] == found[3]
    assert found[2] == int(logits[0].argmax())
    assert len({found[0], found[1], found[4], found[5]}) == 4
    alone = fast.gumbel_sample(logits[:1], heat[:1], seeds[:1], positions[:1])
    assert alone.tolist() == found[:1]


def test_a_temperature_divides_what_is_drawn_from() -> None:
    """By a power of two, exactly; the noise is the same."""
    logits, rows = torch.randn(12, 500) * 3, torch.arange(12)
    plain = fast.gumbel_sample(logits, torch.ones(12), rows, rows)
    for heat in (0.25, 8.0):
        drawn = fast.gumbel_sample(logits, torch.full((12,), heat), rows, rows)
        assert torch.equal(drawn, fast.gumbel_sample(logits / heat, torch.ones(12), rows, rows))
        assert not torch.equal(drawn, plain)


def test_what_is_left_out_is_never_drawn() -> None:
    logits = torch.full((40, 300), float("-inf"))
    logits[:, [3, 200]] = 0.0
    rows = torch.arange(40)
    found = fast.gumbel_sample(logits, torch.full((40,), 1e4), rows, rows)
    assert set(found.tolist()) == {3, 200}

"""The small kernels and the sampler on a GPU against plain torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

Apart = Callable[[Tensor, Tensor], float]
DTYPES = (torch.bfloat16, torch.float16, torch.float32)
CLOSE = {torch.bfloat16: 4e-3, torch.float16: 5e-4, torch.float32: 1e-6}


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype).cuda()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [64, 80, 1152, 2048, 8192])
def test_rms_norm(apart: Apart, size: int, dtype: torch.dtype) -> None:
    from velollm_cuda.kernels import fast, reference

    x, weight, residual = randn(33, size, dtype=dtype), randn(size, seed=1), randn(33, size, dtype=dtype, seed=2)
    assert apart(fast.rms_norm(x, weight, 1e-5), reference.rms_norm(x, weight, 1e-5)) < CLOSE[dtype]
    mine, theirs = residual.clone(), residual.clone()
    found, wanted = fast.rms_norm(x, weight, 1e-5, mine), reference.rms_norm(x, weight, 1e-5, theirs)
    assert apart(found, wanted) < CLOSE[dtype]
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("size", "depth"), [(7, 100), (3072, 2048), (1024, 1024), (4096, 14336)])
def test_linear_of_one_token(apart: Apart, size: int, depth: int, dtype: torch.dtype) -> None:
    from velollm_cuda.kernels import fast, reference

    x, weight, bias = randn(1, depth, dtype=dtype), randn(size, depth, dtype=dtype, seed=1), randn(size, dtype=dtype)
    wanted = reference.linear(x.double(), weight.double())
    assert apart(fast.linear(x, weight), wanted) < CLOSE[dtype]
    assert apart(fast.linear(x, weight, bias), wanted + bias.double()) < CLOSE[dtype]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["silu_mul", "gelu_mul"])
def test_gates(apart: Apart, name: str, dtype: torch.dtype) -> None:
    from velollm_cuda.kernels import fast, reference

    for size in (96, 3072, 14336):
        x = randn(7, 2 * size, dtype=dtype) * 6
        assert apart(getattr(fast, name)(x), getattr(reference, name)(x)) < 2 * CLOSE[dtype]


@pytest.mark.parametrize("cache_dtype", ["same", "fp8"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("size", "kv_heads"), [(64, 8), (80, 2), (96, 1), (128, 8), (256, 4)])
def test_rope_store(apart: Apart, size: int, kv_heads: int, normed: bool, cache_dtype: str) -> None:
    from velollm_cuda.kernels import fast, reference

    if cache_dtype == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("FP8 needs compute capability 8.9")
    heads, tokens, page = 4 * kv_heads, 50, 16
    qkv = randn(tokens, (heads + 2 * kv_heads) * size, dtype=torch.bfloat16)
    cosine, sine = randn(99, size // 2, seed=1).sin(), randn(99, size // 2, seed=2).sin()
    random = torch.Generator().manual_seed(3)
    positions = torch.randint(0, 99, (tokens,), generator=random).cuda()
    slots = torch.randperm(8 * page, generator=random)[:tokens].cuda()
    slots[::7] = -1
    held = torch.float8_e4m3fn if cache_dtype == "fp8" else torch.bfloat16
    caches = [torch.full((8, 2, page, kv_heads, size), math.nan, device="cuda").to(held) for _ in range(2)]
    options = {"query_norm": randn(size, seed=4), "key_norm": randn(size, seed=5)} if normed else {}
    scales = {"key_scale": 0.05, "value_scale": 0.005} if cache_dtype == "fp8" else {}
    answers = [
        kernels.rope_store(qkv, cosine, sine, positions, slots, cache[:, 0], cache[:, 1], heads, **options, **scales)
        for kernels, cache in zip((fast, reference), caches, strict=True)
    ]
    assert apart(*answers) < CLOSE[torch.bfloat16]
    mine, theirs = (cache.float() for cache in caches)
    assert torch.equal(mine.isnan(), theirs.isnan())
    # What lies between two FP8 numbers may go to either: the rotation rounds differently.
    assert apart(mine.nan_to_num(), theirs.nan_to_num()) < (2e-2 if cache_dtype == "fp8" else CLOSE[torch.bfloat16])


@pytest.mark.parametrize("batch", [1, 63, 64, 300])
def test_slots(batch: int) -> None:
    from velollm_cuda.kernels import fast, reference

    random = torch.Generator().manual_seed(batch)
    count = 400
    last, table = torch.randint(0, 999, (count + 1,), generator=random), torch.randint(0, 5000, (count + 1, 14))
    lengths = torch.randint(0, 200, (count + 1,), generator=random).int()
    rows = torch.randperm(count, generator=random)[:batch].int()
    rows[torch.rand(batch, generator=random) < 0.2] = count
    outcomes = []
    for kernels in (fast, reference):
        state, mine = (last.cuda(), lengths.cuda()), rows.cuda()
        tokens, positions, slots = (torch.full((batch,), -77).cuda() for _ in range(3))
        grown = torch.full((batch,), -77, dtype=torch.int32).cuda()
        kernels.next_slots(mine, state[1], table.int().cuda(), 16, slots)
        kernels.begin_decode(mine, *state, tokens, positions, grown)
        kernels.end_decode(mine, *state, tokens + 5, grown)
        outcomes.append((tokens, positions, slots, grown, *state))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(*outcomes, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_greedy_takes_the_first_of_the_largest(dtype: torch.dtype) -> None:
    from velollm_cuda.kernels import fast

    logits, rows = randn(64, 151_936, dtype=dtype), torch.arange(64).cuda()
    largest = logits.max(-1, keepdim=True).values
    first = torch.where(logits == largest, torch.arange(151_936).cuda(), 151_936).min(-1).values
    assert torch.equal(fast.gumbel_sample(logits, torch.zeros(64).cuda(), rows, rows), first)


def test_a_hundred_thousand_draws_follow_their_distribution() -> None:
    from velollm_cuda.kernels import fast

    size, count = 5000, 100_000
    # Ten groups of tokens, spread over the vocabulary so that every lane and block takes part.
    group = torch.arange(size) % 10
    logits = (-0.5 * group).float().cuda()[None].expand(count, -1)
    positions = torch.arange(count).cuda()
    drawn = fast.gumbel_sample(logits, torch.full((count,), 0.8).cuda(), torch.full_like(positions, 11), positions)
    counts = torch.bincount(group.cuda()[drawn], minlength=10).double().cpu()
    chances = (-0.5 * torch.arange(10) / 0.8).double().softmax(0)
    statistic = float(((counts - chances * count) ** 2 / (chances * count)).sum())
    assert (statistic - 9) / math.sqrt(18) < 4
    # Within a group every token is as likely as the next.
    within = torch.bincount(drawn[group.cuda()[drawn] == 0] // 10, minlength=500).double()
    even = float(((within - within.mean()) ** 2 / within.mean()).sum())
    assert abs(even - 499) / math.sqrt(2 * 499) < 4


def test_a_rows_draw_does_not_depend_on_the_batch() -> None:
    from velollm_cuda.kernels import fast

    logits, rows = randn(100, 32_000), torch.arange(100).cuda()
    heat = torch.linspace(0, 2, 100).cuda()
    whole = fast.gumbel_sample(logits, heat, rows * 3, rows)
    part = fast.gumbel_sample(logits[40:47], heat[40:47], rows[40:47] * 3, rows[40:47])
    assert torch.equal(whole[40:47], part)
    assert len(set(whole.tolist())) > 50


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_floors_leave_in_what_sorting_does(dtype: torch.dtype) -> None:
    from velollm_cuda.kernels import fast, reference

    count, size = 48, 128_256
    logits = randn(count, size, dtype=dtype) * 2
    heat = torch.tensor([0.0, 0.6, 1.0, 1.5]).repeat(12).cuda()
    top_k = torch.tensor([0, 1, 20, 50, 1000, size + 5]).repeat(8).cuda()
    top_p = torch.tensor([1.0, 0.95, 0.5]).repeat_interleave(16).cuda()
    min_p = torch.tensor([0.0, 0.1]).repeat_interleave(24).cuda()
    found = fast.floors(logits, heat, top_k, top_p, min_p)
    wanted = reference.floors(logits, heat, top_k, top_p, min_p)
    kept, right = (logits.float() >= floors[:, None] for floors in (found, wanted))
    # Sums of a hundred thousand chances differ in their last digits: a token or two at the edge of top-p may too.
    assert (kept ^ right).sum(-1).max() <= max(2, int(0.001 * right.sum(-1).max()))
    assert torch.equal(kept[top_p == 1], right[top_p == 1])

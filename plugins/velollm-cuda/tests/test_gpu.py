"""The kernels on a real card, in the types it computes in, against fp32 torch: `make gpu`."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from velollm_cuda.kernels import fast, reference  # noqa: E402
from velollm_cuda.kernels.decode import decode_attention  # noqa: E402
from velollm_cuda.kernels.prefill import prefill_attention  # noqa: E402
from velollm_cuda.kernels.split import SplitPlan  # noqa: E402
from velollm_cuda.kernels.tiles import TilePlan  # noqa: E402

pytestmark = pytest.mark.gpu

LENGTHS = [0, 1, 15, 16, 17, 300, 1000, 4097]
TOLERANCE = {torch.bfloat16: 8e-3, torch.float16: 2e-3}


def paged(lengths: list[int], kv_heads: int, size: int, block: int, dtype: torch.dtype):
    """Shuffled blocks of random keys and values; what no sequence holds is NaN."""
    counts = [-(-length // block) for length in lengths]
    blocks = sum(counts) + 1
    order = torch.randperm(blocks - 1, device="cuda") + 1
    table = torch.zeros(len(lengths), max(1, *counts), dtype=torch.int32, device="cuda")
    cache = [torch.full((blocks, block, kv_heads, size), float("nan"), dtype=dtype, device="cuda") for _ in range(2)]
    at = 0
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[row, :count] = order[at : at + count]
        at += count
        slots = torch.arange(length, device="cuda")
        for each in cache:
            values = torch.randn(length, kv_heads, size, dtype=dtype, device="cuda")
            each[table[row, slots // block].long(), slots % block] = values
    return cache[0], cache[1], table


def distance(found: torch.Tensor, right: torch.Tensor) -> float:
    return float((found.float() - right.float()).norm() / right.float().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "block", "window", "softcap"),
    [
        (32, 8, 128, 16, 0, 0.0),
        (32, 8, 64, 16, 0, 0.0),
        (8, 8, 80, 32, 0, 0.0),
        (14, 2, 96, 64, 300, 0.0),
        (8, 4, 256, 128, 0, 50.0),
    ],
)
@pytest.mark.parametrize("copies", [1, 8], ids=["small", "large"])
def test_decode(dtype, heads, kv_heads, size, block, window, softcap, copies) -> None:
    lengths = LENGTHS * copies
    keys, values, table = paged(lengths, kv_heads, size, block, dtype)
    query = torch.randn(len(lengths), heads, size, dtype=dtype, device="cuda")
    held = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    plan = SplitPlan.empty(len(lengths), kv_heads, heads // kv_heads, size, query.device)
    plan.fill(held, torch.arange(len(lengths), dtype=torch.int32, device="cuda"), window)
    out = torch.full_like(query, float("nan"))
    options = {"scale": size**-0.5, "softcap": softcap}
    decode_attention(query, keys, values, table, plan, **options, out=out)
    right = reference.decode_attention(
        query.float(), keys.float(), values.float(), table, held, window=window, **options
    )
    assert distance(out, right) < TOLERANCE[dtype]
    assert not plan.arrived.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "size", "window"), [(32, 8, 128, 0), (32, 8, 64, 0), (14, 2, 96, 200), (8, 4, 256, 0)]
)
@pytest.mark.parametrize("chunks", [[5, 1, 130, 257], [4096]], ids=["ragged", "long"])
def test_prefill(dtype, heads, kv_heads, size, window, chunks) -> None:
    lengths = [chunk + context for chunk, context in zip(chunks, [0, 40, 1000, 3], strict=False)]
    keys, values, table = paged(lengths, kv_heads, size, 16, dtype)
    query = torch.randn(sum(chunks), heads, size, dtype=dtype, device="cuda")
    plan = TilePlan.of(chunks, lengths, list(range(len(chunks))), heads // kv_heads, kv_heads, size, query.device)
    out = torch.full_like(query, float("nan"))
    options = {"scale": size**-0.5, "window": window}
    prefill_attention(query, keys, values, table, plan, **options, out=out)
    right = reference.prefill_attention(
        query.float(), keys.float(), values.float(), table, plan.lengths, plan.starts, **options
    )
    assert distance(out, right) < TOLERANCE[dtype]


def test_offsets_beyond_two_to_the_31() -> None:
    blocks, block, kv_heads, size = 40_000, 128, 8, 64
    keys = torch.zeros(blocks, block, kv_heads, size, dtype=torch.bfloat16, device="cuda")
    assert keys.numel() > 2**31
    values = torch.zeros_like(keys)
    keys[-1], values[-1] = torch.randn(2, block, kv_heads, size, device="cuda").bfloat16()
    table = torch.tensor([[blocks - 1]], dtype=torch.int32, device="cuda")
    query = torch.randn(1, 32, size, dtype=torch.bfloat16, device="cuda")
    held = torch.tensor([100], dtype=torch.int32, device="cuda")
    plan = SplitPlan.empty(1, kv_heads, 4, size, query.device)
    plan.fill(held, torch.zeros(1, dtype=torch.int32, device="cuda"))
    out = decode_attention(query, keys, values, table, plan, scale=size**-0.5)
    assert distance(out, reference.decode_attention(query, keys, values, table, held, scale=size**-0.5)) < 8e-3


@pytest.mark.parametrize("size", [64, 128, 96])
def test_rotary_and_norms(size) -> None:
    heads, kv_heads, tokens, block = 8, 2, 33, 16
    qkv = torch.randn(tokens, (heads + 2 * kv_heads) * size, device="cuda").bfloat16()
    cosine, sine = torch.randn(2, 100, size // 2, device="cuda")
    positions = torch.randint(0, 100, (tokens,), device="cuda")
    slots = torch.randperm(4 * block, device="cuda")[:tokens]
    caches = [torch.zeros(4, block, kv_heads, size, device="cuda").bfloat16() for _ in range(4)]
    norms = {"query_norm": torch.randn(size, device="cuda"), "key_norm": torch.randn(size, device="cuda")}
    found = fast.rope_store(qkv, cosine, sine, positions, slots, *caches[:2], heads, **norms)
    right = reference.rope_store(qkv, cosine, sine, positions, slots, *caches[2:], heads, **norms)
    assert distance(found, right) < 8e-3
    assert distance(caches[0], caches[2]) < 8e-3
    assert torch.equal(caches[1], caches[3])
    x, residual = torch.randn(2, tokens, 2048, device="cuda").bfloat16()
    weight, other = torch.randn(2048, device="cuda"), residual.clone()
    assert distance(fast.rms_norm(x, weight, 1e-5, residual), reference.rms_norm(x, weight, 1e-5, other)) < 8e-3
    assert distance(fast.silu_mul(x), reference.silu_mul(x)) < 8e-3
    assert distance(fast.gelu_mul(x), reference.gelu_mul(x)) < 8e-3

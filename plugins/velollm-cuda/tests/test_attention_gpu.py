"""Paged attention on a GPU against plain torch in fp32 over the same cache: a trimmed matrix in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

# The warnings of whatever torch and driver are there are not ours to fail on.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

Apart = Callable[[torch.Tensor, torch.Tensor], float]
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Chances are rounded to the cache's type before they weigh the values: 2 ** -9 in bf16, 2 ** -12 in fp16.
CLOSE = {"bf16": 1e-2, "fp16": 2e-3}
# Each head size, group and block size at least twice: every case is a kernel that has to be compiled first.
MATRIX = [
    (64, 4, 16, "bf16"), (64, 1, 64, "bf16"), (80, 1, 32, "bf16"), (80, 7, 16, "bf16"), (96, 8, 64, "bf16"),
    (96, 2, 128, "bf16"), (128, 4, 16, "bf16"), (128, 8, 128, "bf16"), (256, 2, 16, "bf16"), (256, 7, 32, "bf16"),
    (64, 8, 32, "fp16"), (80, 2, 128, "fp16"), (128, 7, 16, "fp16"), (256, 4, 64, "fp16"),
]  # fmt: skip


@pytest.mark.parametrize(("size", "group", "page", "dtype"), MATRIX)
def test_decode(paged: Any, apart: Apart, size: int, group: int, page: int, dtype: str) -> None:
    lengths = [page, 0, 1, page + 1, 2 * page - 1, 3000, 129]
    case = paged.of(lengths, heads=2 * group, size=size, page=page, dtype=HALF[dtype], device="cuda")
    found, wanted = case.decode()
    assert apart(found, wanted) < CLOSE[dtype]
    assert not found[1].any()


@pytest.mark.parametrize(("size", "group", "page", "dtype"), MATRIX)
def test_prefill(paged: Any, apart: Apart, size: int, group: int, page: int, dtype: str) -> None:
    chunks, lengths = [200, 0, 1, 3, 129], [200, 7, 1, page + 1, 1500]
    case = paged.of(lengths, chunks=chunks, heads=2 * group, size=size, page=page, dtype=HALF[dtype], device="cuda")
    assert apart(*case.prefill()) < CLOSE[dtype]


@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize("size", [64, 256])
@pytest.mark.parametrize(
    "options",
    [{"window": 1}, {"window": 100}, {"window": 1024, "softcap": 50.0}, {"softcap": 5.0}, {"sinks": True}],
    ids=str,
)
def test_options(paged: Any, apart: Apart, kind: str, size: int, options: dict[str, Any]) -> None:
    lengths, chunks = [3, 700, 1500, 17], [3, 300, 64, 1]
    chunks = chunks if kind == "prefill" else None  # type: ignore[assignment]
    case = paged.of(lengths, chunks=chunks, heads=8, size=size, dtype=torch.bfloat16, device="cuda")
    if "sinks" in options:
        options = {"sinks": torch.linspace(-2, 3, 8, device="cuda")}
    assert apart(*getattr(case, kind)(**options)) < CLOSE["bf16"]


@pytest.mark.parametrize("kind", ["decode", "prefill"])
@pytest.mark.parametrize("size", [64, 96])
def test_an_fp8_cache(paged: Any, apart: Apart, kind: str, size: int) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("FP8 needs compute capability 8.9")
    chunks = [200, 0, 1] if kind == "prefill" else None
    case = paged.of(
        [2000, 0, 17], chunks=chunks, heads=8, size=size, dtype=torch.bfloat16, cache_dtype=torch.float8_e4m3fn,
        device="cuda",
    )  # fmt: skip
    assert apart(*getattr(case, kind)(key_scale=0.25, value_scale=8.0)) < CLOSE["bf16"]


@pytest.mark.parametrize("batch", [1, 2, 33, 256, 512])
def test_batches_of_mixed_lengths(paged: Any, apart: Apart, batch: int) -> None:
    random = torch.Generator().manual_seed(batch)
    lengths = torch.randint(0, 900, (batch,), generator=random).tolist()
    lengths[-1] = 20_000
    case = paged.of(lengths, heads=8, size=128, dtype=torch.bfloat16, device="cuda", seed=batch)
    assert apart(*case.decode()) < CLOSE["bf16"]


def test_the_same_step_twice_gives_the_same_bits(paged: Any) -> None:
    """However the pieces of a sequence arrive, they are merged in their order."""
    case = paged.of([9000, 300, 5], heads=8, size=128, dtype=torch.bfloat16, device="cuda")
    first, _ = case.decode()
    assert all(torch.equal(first, case.decode()[0]) for _ in range(20))


def test_a_graph_serves_steps_of_other_lengths(paged: Any, apart: Apart) -> None:
    """The plan is made inside: what was captured over short sequences is replayed over long ones."""
    from velollm_cuda.kernels import reference
    from velollm_cuda.kernels.decode import decode_attention
    from velollm_cuda.kernels.split import SplitPlan

    case = paged.of([4000, 2000, 600, 1], heads=8, size=128, dtype=torch.bfloat16, device="cuda")
    lengths = torch.tensor([1, 1, 1, 1], dtype=torch.int32, device="cuda")
    rows = torch.tensor(case.rows, dtype=torch.int32, device="cuda")
    plan, out = SplitPlan.empty(4, 2, 4, 128, torch.device("cuda")), torch.empty_like(case.query)

    def step() -> None:
        plan.fill(lengths, rows)
        decode_attention(case.query, case.key_cache, case.value_cache, case.tables, plan, scale=0.1, out=out)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for wanted in ([4000, 2000, 600, 1], [1, 0, 599, 1], [0, 0, 0, 0], [3999, 17, 16, 1]):
        lengths.copy_(torch.tensor(wanted, dtype=torch.int32))
        out.fill_(float("nan"))
        graph.replay()
        table = case.tables[rows.long()]
        answer = reference.decode_attention(case.query, case.key_cache, case.value_cache, table, lengths, scale=0.1)
        assert apart(out, answer) < CLOSE["bf16"], wanted


@pytest.mark.parametrize("kind", ["decode", "prefill"])
def test_blocks_beyond_two_to_the_31_elements(paged: Any, apart: Apart, kind: str) -> None:
    """The last blocks of a cache whose offsets no 32-bit integer holds."""
    size, page, kv_heads = 128, 64, 8
    blocks = 2**31 // (page * kv_heads * size) + 40
    if torch.cuda.mem_get_info()[0] < 3 * blocks * page * kv_heads * size * 2:
        pytest.skip("needs 13 GB of free GPU memory")
    lengths = [900, 64, 1]
    chunks = [200, 64, 1] if kind == "prefill" else None
    small = paged.of(
        lengths, chunks=chunks, heads=32, kv_heads=kv_heads, size=size, page=page, dtype=torch.bfloat16, device="cuda"
    )
    used = small.key_cache.shape[0]
    caches = []
    for cache in (small.key_cache, small.value_cache):
        large = torch.empty(blocks, page, kv_heads, size, dtype=torch.bfloat16, device="cuda")
        large[blocks - used :] = cache
        caches.append(large)
    from attrs import evolve

    far = evolve(small, key_cache=caches[0], value_cache=caches[1], tables=small.tables + (blocks - used))
    found, wanted = getattr(far, kind)()
    near, _ = getattr(small, kind)()
    assert torch.equal(found, near)
    assert apart(found, wanted) < CLOSE["bf16"]

"""Compile every kernel as the engine launches it, for a card that need not be here: `python compiling.py 90 132`.

The arguments are compute capability and multiprocessors. Prints a line for each program: its name, what it is for, and
the bytes of shared memory it takes.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction
from velollm_cuda.kernels import decode, fast, gate, gemv, norm, prefill, rope_store, sample, slots, split, tiles
from velollm_cuda.kernels.decode import decode_attention
from velollm_cuda.kernels.prefill import prefill_attention

CARD = torch.device("cuda", 0)
CPU = torch.device("cpu")
OVERLAPPING = (decode, gate, gemv, norm, prefill, rope_store, sample, slots)


class AbsentCard:
    """Triton's driver of a card that compiles and never launches."""

    def __init__(self, capability: int) -> None:
        properties = {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32}
        self.utils = SimpleNamespace(get_device_properties=lambda device: properties)
        self.get_current_device = lambda: 0
        self.get_current_stream = lambda device: 0
        self.get_current_target = lambda: GPUTarget("cuda", capability, 32)


def compile_only(purpose: list[str]) -> None:
    """Let a launch compile its kernel and print what it takes."""
    run = JITFunction.run

    def warm(self: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> Any:
        kernel = run(self, *arguments, grid=grid, warmup=True, **constants)
        print(self.fn.__name__, *purpose, kernel.metadata.shared)
        return kernel

    JITFunction.run = warm


def as_on_the_card(module: Any, name: str) -> None:
    """Let a choice that looks at the device, its last argument, see the card."""
    choose = getattr(module, name)
    setattr(module, name, lambda *arguments: choose(*arguments[:-1], CARD))


def attention(heads: int, size: int, dtype: torch.dtype, cache_dtype: torch.dtype, **options: Any) -> None:
    """Decode and prefill of two KV heads, a short and a long step."""
    window = options.pop("window", 0)
    query = torch.empty(3, heads, size, dtype=dtype)
    cache = torch.empty(4, 16, 2, size).to(cache_dtype)
    table, lengths = torch.zeros(3, 4, dtype=torch.int32), torch.full((3,), 40, dtype=torch.int32)
    for batch in (1, 3):
        plan = split.SplitPlan.empty(batch, 2, heads // 2, size, CPU)
        plan.fill(lengths.repeat(6)[:batch], lengths, window)
        decode_attention(query, cache, cache, table, plan, scale=0.1, **options)
    for chunk in (1, 100_000):
        tiling = tiles.TilePlan.of([chunk], [chunk], [0], heads // 2, 2, size, CPU)
        prefill_attention(query, cache, cache, table, tiling, scale=0.1, window=window, **options)


def rotated(dtype: torch.dtype, cache_dtype: torch.dtype, **options: Any) -> None:
    """Rotary embedding of 32 heads over eight KV heads, and the store."""
    table, ints = torch.empty(9, 64), torch.zeros(2, dtype=torch.int64)
    cache, qkv = torch.empty(4, 16, 8, 128).to(cache_dtype), torch.empty(2, 48 * 128, dtype=dtype)
    fast.rope_store(qkv, table, table, ints, ints, cache, cache, 32, **options)


def small(dtype: torch.dtype) -> None:
    """The element-wise kernels, at the width of a large model."""
    x, weight = torch.empty(2, 8192, dtype=dtype), torch.empty(8192)
    fast.rms_norm(x, weight, 1e-6)
    fast.rms_norm(x, weight, 1e-6, x.clone())
    fast.silu_mul(x)
    fast.linear(x[:1], torch.empty(8, 8192, dtype=dtype))
    fast.gelu_mul(x)
    rotated(dtype, dtype)
    rotated(dtype, dtype, query_norm=weight[:128], key_norm=weight[:128])
    ints = torch.zeros(2, dtype=torch.int64)
    logits = torch.empty(2, 150_000, dtype=dtype)
    fast.gumbel_sample(logits, weight[:2], ints, ints)
    fast.floors(logits, weight[:2], ints, weight[:2], weight[:2])
    rows = ints.int()
    fast.next_slots(rows, rows, torch.zeros(3, 4, dtype=torch.int32), 16, ints)
    fast.begin_decode(rows, ints, rows, ints, ints, rows)
    fast.end_decode(rows, ints, rows, ints, rows)


def main(capability: int, multiprocessors: int) -> None:
    """Compile all there is."""
    purpose = ["-"]
    torch.cuda.get_device_properties = lambda device: SimpleNamespace(multi_processor_count=multiprocessors)
    torch.cuda.get_device_capability = lambda device: divmod(capability, 10)
    chosen = [(split, "pieces"), (split, "tile_keys"), (tiles, "tile_rows"), (prefill, "_tile_keys")]
    for module, name in chosen + [(each, "overlapping") for each in OVERLAPPING]:
        as_on_the_card(module, name)
    driver.set_active(AbsentCard(capability))
    compile_only(purpose)
    half = torch.bfloat16
    small(half)
    for size, group in ((64, 4), (80, 7), (256, 2)):
        purpose[:] = [f"bf16-{size}"]
        attention(2 * group, size, half, half)
    purpose[:] = ["options"]
    attention(8, 128, torch.float16, torch.float16, window=4096, softcap=50.0, sinks=torch.empty(8))
    if capability >= 89:
        purpose[:] = ["fp8"]
        attention(8, 128, half, torch.float8_e4m3fn, key_scale=0.5, value_scale=0.5)
        rotated(half, torch.float8_e4m3fn, key_scale=0.5, value_scale=0.5)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

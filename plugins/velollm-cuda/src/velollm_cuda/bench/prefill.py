"""Part ``prefill``: paged attention of chunks, and a step that has decodes and a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from velollm_cuda.batch import Batch, Chunks, Decodes
from velollm_cuda.bench.decode import correctness, filled_plan
from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.paged import PagedCache, distance, dtype_on
from velollm_cuda.bench.shapes import HEADS, HYBRID, PREFILL, PREFILL_AIM, HybridShape, PrefillShape
from velollm_cuda.bench.timing import graph_time
from velollm_cuda.bench.yardstick import prefill_time
from velollm_cuda.kernels import reference
from velollm_cuda.kernels.prefill import prefill_attention
from velollm_cuda.kernels.tiles import TilePlan

CHECKED = 64


def measure_prefill(
    judged: bool, device: torch.device, shapes: Sequence[PrefillShape] = PREFILL, hybrid: HybridShape = HYBRID
) -> tuple[list[Measurement], list[Bar]]:
    """Every one of ``shapes``, then a step that has both kinds of work."""
    measurements, bars = [], []
    for shape in shapes:
        measured = _measure(shape, device).told()
        measurements.append(measured)
        if shape.tflop_s:
            rate = measured.figures["rate"]
            bars.append(Bar.at_least(measured.name, rate, shape.tflop_s, judged=judged, aim=PREFILL_AIM))
        torch.cuda.empty_cache()
    both = _measure_hybrid(hybrid, device).told()
    measurements.append(both)
    bars.append(Bar.no_more(both.name, both.figures["time"], hybrid.microseconds, judged=judged))
    return measurements, [*bars, correctness("prefill", measurements)]


def tile_plan(shape: PrefillShape, device: torch.device, first_row: int = 0) -> TilePlan:
    """The tiles of one step of ``shape``; its block tables are the rows from ``first_row`` on."""
    heads = HEADS[shape.heads]
    rows = list(range(first_row, first_row + shape.count))
    counts, lengths = [shape.chunk] * shape.count, [shape.length] * shape.count
    return TilePlan.of(counts, lengths, rows, heads.group, heads.kv, heads.size, device)


def _measure(shape: PrefillShape, device: torch.device) -> Measurement:
    figures, copies = _ours(shape, device)
    torch.cuda.empty_cache()
    sdpa = prefill_time(shape, copies, device)
    if isinstance(sdpa, str):
        return Measurement(f"prefill {shape.name}", figures, sdpa)
    beside = {"SDPA": sdpa, "SDPA's rate": sdpa.mapped(_rate(shape), "TFLOP/s")}
    return Measurement(f"prefill {shape.name}", figures | beside)


def _ours(shape: PrefillShape, device: torch.device) -> tuple[dict[str, Figure], int]:
    """Our kernel's figures, and how many copies of the cache they were measured over."""
    heads = HEADS[shape.heads]
    cache = PagedCache.of([shape.length] * shape.count, heads, device)
    query = _queries(shape.count * shape.chunk, shape, device)
    plan, scale = tile_plan(shape, device), heads.size**-0.5
    out = torch.full_like(query, float("nan"))

    def attend(table: Tensor) -> Tensor:
        return prefill_attention(query, cache.key, cache.value, table, plan, scale=scale, out=out)

    time = graph_time([lambda table=table: attend(table) for table in cache.tables])  # type: ignore[misc]
    attend(cache.tables[0])
    off = _distance(out[: shape.chunk], query[: shape.chunk], cache.key, cache.value, cache.tables[0][:1], shape)
    off += 0.0 if out.isfinite().all() else 1e9
    figures = {"time": time, "rate": time.mapped(_rate(shape), "TFLOP/s"), "off by": Figure.of([off], "")}
    return figures, len(cache.tables)


def _measure_hybrid(shape: HybridShape, device: torch.device) -> Measurement:
    """One step, as the engine launches it."""
    decodes, chunk = shape.decodes, shape.chunk
    heads, count = HEADS[decodes.heads], len(decodes.lengths)
    cache = PagedCache.of([*decodes.lengths, chunk.length], heads, device)
    query = _queries(count + chunk.chunk, chunk, device)
    split, tiles = filled_plan(decodes, cache.lengths[:count]), tile_plan(chunk, device, count)
    rows = torch.arange(count + 1, dtype=torch.int32, device=device)

    def attend(table: Tensor) -> Tensor:
        one = Decodes(rows[:count], cache.lengths[:count], (split,))
        batch = Batch(rows, rows, (rows,), (table,), one, Chunks(rows[count:], tiles))
        return batch.attend(query, cache.key, cache.value, 0, scale=heads.size**-0.5, window=0, softcap=0.0)

    time = graph_time([lambda table=table: attend(table) for table in cache.tables])  # type: ignore[misc]
    out = attend(cache.tables[0])
    off = _distance(out[count:], query[count:], cache.key, cache.value, cache.tables[0][count:], chunk)
    name = f"hybrid step, decode {decodes.name} and prefill {chunk.name}"
    return Measurement(name, {"time": time, "off by": Figure.of([off], "")})


def _distance(out: Tensor, query: Tensor, key: Tensor, value: Tensor, table: Tensor, shape: PrefillShape) -> float:
    """How far the last queries of one chunk are from fp32: they see all there is."""
    lengths, starts = (torch.tensor(each, device=table.device) for each in ([shape.length], [0, CHECKED]))
    scale = HEADS[shape.heads].size ** -0.5
    wanted = reference.prefill_attention(query[-CHECKED:].float(), key, value, table, lengths, starts, scale=scale)
    return distance(out[-CHECKED:], wanted)


def _queries(count: int, shape: PrefillShape, device: torch.device) -> Tensor:
    heads = HEADS[shape.heads]
    return torch.randn(count, heads.query, heads.size, dtype=dtype_on(device), device=device)


def _rate(shape: PrefillShape) -> Callable[[float], float]:
    return lambda micros: shape.operations / micros / 1e6

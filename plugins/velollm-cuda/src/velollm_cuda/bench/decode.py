"""Part ``kernels``: paged decode attention, shape by shape, beside SDPA on contiguous keys and values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.paged import PagedCache, distance, dtype_on
from velollm_cuda.bench.shapes import DECODE, HEADS, DecodeShape
from velollm_cuda.bench.timing import graph_time
from velollm_cuda.bench.yardstick import decode_time
from velollm_cuda.kernels import reference
from velollm_cuda.kernels.decode import decode_attention
from velollm_cuda.kernels.split import SplitPlan

CHECKED = 4
FARTHEST = 1e-2
FILLS = 8


def measure_decode(
    judged: bool, device: torch.device, shapes: Sequence[DecodeShape] = DECODE
) -> tuple[list[Measurement], list[Bar]]:
    """Every one of ``shapes``; bars are judged on the card that they were set for, correctness on any."""
    measurements: list[Measurement] = []
    bars: list[Bar] = []
    for shape in shapes:
        measured = _measure(shape, device).told()
        measurements.append(measured)
        bars += _bars(shape, measured, judged)
        torch.cuda.empty_cache()
    return measurements, [*bars, correctness("decode", measurements)]


def correctness(name: str, measurements: Sequence[Measurement]) -> Bar:
    """The bar that no speed makes up for: the farthest that any of ``measurements`` is from fp32."""
    worst = Figure.of([max(each.figures["off by"].value for each in measurements)], "relative L2")
    return Bar.no_more(f"{name}, distance from fp32", worst, FARTHEST, judged=True)


def filled_plan(shape: DecodeShape, lengths: Tensor) -> SplitPlan:
    """The split plan of one step of ``shape``."""
    heads = HEADS[shape.heads]
    plan = SplitPlan.empty(len(lengths), heads.kv, heads.group, heads.size, lengths.device)
    plan.fill(lengths, _rows(lengths))
    return plan


def _measure(shape: DecodeShape, device: torch.device) -> Measurement:
    figures, copies = _ours(shape, device)
    torch.cuda.empty_cache()
    return Measurement(f"decode {shape.name}", *_beside(shape, copies, device, figures))


def _ours(shape: DecodeShape, device: torch.device) -> tuple[dict[str, Figure], int]:
    """Our kernel's figures, and how many copies of the cache they were measured over."""
    heads = HEADS[shape.heads]
    cache = PagedCache.of(shape.lengths, heads, device)
    query = torch.randn(len(shape.lengths), heads.query, heads.size, dtype=dtype_on(device), device=device)
    plan, scale = filled_plan(shape, cache.lengths), heads.size**-0.5
    out = torch.full_like(query, float("nan"))

    def attend(table: Tensor) -> Tensor:
        return decode_attention(query, cache.key, cache.value, table, plan, scale=scale, out=out)

    # Time first: what the reference leaves in the memory's state has made the same launches 17% slower.
    time = graph_time([lambda table=table: attend(table) for table in cache.tables])  # type: ignore[misc]
    rows = _rows(cache.lengths)
    fill = graph_time([lambda: plan.fill(cache.lengths, rows)] * FILLS)
    attend(cache.tables[0])
    off = _distance(out, query, cache, scale)
    figures = {
        "time": time,
        "read": time.mapped(lambda micros: shape.bytes / micros / 1e3, "GB/s"),
        "plan, once a step": fill,
        "off by": Figure.of([off], ""),
    }
    return figures, len(cache.tables)


def _beside(
    shape: DecodeShape, copies: int, device: torch.device, figures: dict[str, Figure]
) -> tuple[dict[str, Figure], str]:
    """``figures`` with the yardstick, where it runs."""
    if not shape.ratio:
        return figures, "no SDPA: lengths differ"
    sdpa = decode_time(shape, copies, device)
    if isinstance(sdpa, str):
        return figures, sdpa
    against = sdpa.value
    return {**figures, "SDPA": sdpa, "ratio": figures["time"].mapped(lambda micros: micros / against, "× SDPA")}, ""


def _distance(out: Tensor, query: Tensor, cache: PagedCache, scale: float) -> float:
    """How far some rows are from fp32, the shortest and the longest among them; no row may be left unwritten."""
    order = cache.lengths.argsort()
    rows = torch.cat([order[:CHECKED], order[-1:]]).unique()
    wanted = reference.decode_attention(
        query[rows].float(), cache.key, cache.value, cache.tables[0][rows], cache.lengths[rows], scale=scale
    )
    return distance(out[rows], wanted) + (0.0 if out.isfinite().all() else 1e9)


def _bars(shape: DecodeShape, measured: Measurement, judged: bool) -> Iterator[Bar]:
    if "ratio" in measured.figures:
        yield Bar.no_more(measured.name, measured.figures["ratio"], shape.ratio, judged=judged)
    if shape.gb_s:
        yield Bar.at_least(measured.name, measured.figures["read"], shape.gb_s, judged=judged)


def _rows(lengths: Tensor) -> Tensor:
    return torch.arange(len(lengths), dtype=torch.int32, device=lengths.device)

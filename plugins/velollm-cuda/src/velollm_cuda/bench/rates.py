"""The card's own rates in this run: what every share is a share of."""

from __future__ import annotations

import torch

from velollm_cuda.bench.figure import Figure
from velollm_cuda.bench.timing import event_times, graph_time
from velollm_cuda.bench.workloads import CardRates

COPIED = 2 << 30
SIDE = 8192
IN_A_ROW = 3


def measure_rates() -> tuple[CardRates, dict[str, Figure]]:
    """A copy of 2 GiB, and a product of two bf16 matrices of 8192 × 8192; the medians, and both as figures."""
    copy, matmul = _copy(), _matmul()
    torch.cuda.empty_cache()
    return CardRates(copy.value * 1e9, matmul.value * 1e12), {"copy": copy, "matmul": matmul}


def _copy() -> Figure:
    source = torch.empty(COPIED, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    # Not in a graph: there a copy becomes a node of its own kind, which moves a fifth less.
    time = Figure.of(event_times(lambda: target.copy_(source)), "µs")
    return time.mapped(lambda micros: 2 * COPIED / micros / 1e3, "GB/s")


def _matmul() -> Figure:
    left, right = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    time = graph_time([lambda: left @ right] * IN_A_ROW)
    return time.mapped(lambda micros: 2 * SIDE**3 / micros / 1e6, "TFLOP/s")

"""Running one part of the bench."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from velollm_core.errors import VeloError
from velollm_cuda.bench.figure import Bar, Figure, Measurement
from velollm_cuda.bench.names import ANYWHERE
from velollm_cuda.bench.report import Machine, PartReport


def run_part(name: str) -> PartReport:
    """Measure the part of this name, of `PARTS`.

    Raises:
        VeloError: it needs an NVIDIA GPU, and there is none.
    """
    begun = time.perf_counter()
    machine = Machine.here()
    if name not in ANYWHERE and machine.card is None:
        raise VeloError(f"bench {name}: needs an NVIDIA GPU, and torch finds none; `bench host` runs anywhere")
    rates, measurements, bars = _measured(name, machine.judged)
    seconds = time.perf_counter() - begun
    return PartReport(name, machine, rates, tuple(measurements), tuple(bars), seconds)


def _measured(name: str, judged: bool) -> tuple[dict[str, Figure], list[Measurement], list[Bar]]:
    if name == "host":
        from velollm_cuda.bench.host import measure_host

        return {}, measure_host(), []
    import torch

    from velollm_cuda.bench.rates import measure_rates

    rates, figures = measure_rates()
    device = torch.device("cuda")
    if name == "kernels":
        from velollm_cuda.bench.decode import measure_decode

        return figures, *measure_decode(judged, device)
    if name == "prefill":
        from velollm_cuda.bench.prefill import measure_prefill

        return figures, *measure_prefill(judged, device)
    with tempfile.TemporaryDirectory() as folder:
        if name == "online":
            from velollm_cuda.bench.online import measure_online

            return figures, *measure_online(Path(folder), judged)
        from velollm_cuda.bench.end_to_end import measure_model

        return figures, *measure_model(name.removeprefix("e2e-"), rates, Path(folder), judged)

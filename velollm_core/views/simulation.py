"""A simulated load for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.render import console
from velollm_core.views.figures import percent, rate, seconds

if TYPE_CHECKING:
    from velollm_core.benchmark.percentiles import Percentiles
    from velollm_core.planning.simulation import SimulatedPlan


def show_simulation(found: SimulatedPlan) -> None:
    """Print ``found`` to stdout."""
    screen = console()
    for line in _lines(found):
        screen.print(line, soft_wrap=True, highlight=False)


def _lines(found: SimulatedPlan) -> list[str]:
    slo = found.slo
    places = f"{found.limits.max_num_seqs} at a time"
    cache = f"cache {percent(found.utilisation, 0)} in use, {percent(found.peak_utilisation, 0)} at most"
    refused = f", {len(found.refused)} refused ({found.refused[0]})" if found.refused else ""
    promise = f"first token within {seconds(slo.ttft)}, each after within {seconds(slo.tpot)}, for {slo.share:.0%}"
    holds = (
        f"it holds up to {rate(found.sustainable_rate)} requests/s" if found.sustainable_rate else "no rate keeps it"
    )
    return [
        "",
        f"Simulated: {found.load}, {found.requests} requests in {seconds(found.seconds)}{refused}; {places}",
        f"  first token       {_spread(found.ttft)}",
        f"  each token after  {_spread(found.tpot)}",
        f"  whole answer      {_spread(found.latency)}",
        f"  {rate(found.throughput)} tokens/s; {cache}; {found.preemptions} preemptions",
        f"  Promise: {promise}: {'kept' if found.kept else 'broken'}; {holds}",
        "  Times are predicted, not measured.",
    ]


def _spread(figures: Percentiles | None) -> str:
    if figures is None:
        return "–"
    parts = [("median", figures.p50), ("p90", figures.p90), ("p99", figures.p99), ("most", figures.maximum)]
    return ", ".join(f"{name} {seconds(value)}" for name, value in parts if value is not None)

"""The autopilot's story: machine, plan, measurement, verdict, what follows."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from velollm_core.benchmark.estimate import FEW
from velollm_core.benchmark.quality import Guarded
from velollm_core.render import format_bytes, format_rate
from velollm_core.views.comparison import DETAILS, comparison_lines
from velollm_core.views.figures import percent, rate, rate_spread, ratio_interval, seconds, spread
from velollm_core.views.measurement import noise_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

    from velollm_core.autopilot.outcome import ArmReport, Outcome
    from velollm_core.autopilot.prediction import Foreseen
    from velollm_core.autopilot.shape import Shape
    from velollm_core.hardware.machine import Hardware


def machine_line(hardware: Hardware) -> str:
    """The machine in one line."""
    cpu = hardware.cpu
    parts = [cpu.model or cpu.architecture, f"{cpu.usable_cores} cores"]
    parts.append(f"{format_bytes(hardware.memory.available)} of memory free")
    if cpu.bandwidth:
        parts.append(format_rate(cpu.bandwidth, "B/s"))
    parts += [f"{gpu.name or gpu.vendor} with {format_bytes(gpu.memory_free)} free" for gpu in hardware.visible_gpus]
    return f"Machine: {', '.join(parts)}"


def rule_lines(shape: Shape, budget: float, names: tuple[str, str], resumed: int) -> Iterator[str]:
    """What will be measured and how it will be judged, said before it begins."""
    users = "" if shape.users == 1 else f", {shape.users} users at a time"
    yield (
        f"Measuring {names[0]} against {names[1]}: requests of {shape.prompt_tokens} tokens in and "
        f"{shape.answer_tokens} out{users}, the engine restarted for every block, each pair's order decided by a coin, "
        f"as many pairs as fit into {seconds(budget)}, judged once at the end."
    )
    if resumed:
        yield f"{resumed} pairs of an earlier run that was stopped are taken over."


def show_outcome(screen: Console, outcome: Outcome, foreseen: Sequence[Foreseen]) -> None:
    """Both configurations as measured, prediction, noise and verdict."""
    if outcome.pairs:
        screen.print(arms_table(outcome))
        for phase in foreseen:
            screen.print(prediction_line(phase), markup=False, soft_wrap=True)
        screen.print(noise_line(outcome.noise), markup=False, soft_wrap=True)
        if len(outcome.pairs) < FEW and outcome.pair_seconds:
            screen.print(budget_line(outcome), markup=False, soft_wrap=True)
        if outcome.invalid:
            screen.print(f"{outcome.invalid} invalid blocks were left out.")
        screen.print()
    if outcome.comparison is not None:
        names = (outcome.arms[0].name, outcome.arms[1].name)
        for line in (*comparison_lines(outcome.comparison, *names), *answer_lines(outcome)):
            screen.print(line, markup=False, soft_wrap=True)


def answer_lines(outcome: Outcome) -> Iterator[str]:
    """What the answers say, where settings can change them."""
    for note in Guarded(outcome.quality, outcome.unguarded).notes(outcome.arms[0].name):
        yield f"Answers: {note}."


def arms_table(outcome: Outcome) -> Table:
    """The two configurations side by side, medians over blocks with their range, and the ratios of the pairs."""
    first, second = outcome.arms
    table = Table(box=None, pad_edge=False)
    for name in (_pairs(len(outcome.pairs)), first.name, second.name, "ratio (95%)"):
        table.add_column(name)
    ratios = {comparison.metric: comparison for comparison in outcome.details}
    if outcome.comparison:
        ratios["speed"] = outcome.comparison
    for label, metric, cells in _rows(first, second):
        comparison = ratios.get(metric)
        shown = f"{comparison.ratio:.3f} ({ratio_interval(comparison.interval)})" if comparison else ""
        table.add_row(label, *cells, shown)
    return table


def prediction_line(phase: Foreseen) -> str:
    """Predicted beside measured."""
    measured = "not measured" if phase.measured is None else f"{rate(phase.measured)} measured"
    state = {True: ", within", False: ", outside", None: ""}[phase.within]
    return f"{phase.phase.capitalize()} of the plan: {format_rate(phase.expected)}; {measured}{state}"


def budget_line(outcome: Outcome) -> str:
    """How long a budget would give enough pairs for a verdict that assumes nothing of the noise."""
    one = outcome.pair_seconds or 0.0
    needed = math.ceil((FEW * one * 1.2 + outcome.seconds - len(outcome.pairs) * one) / 60)
    return f"A pair took {seconds(one)}: --budget {needed}m would give {FEW} of them, or ask for fewer --answer-tokens."


def _pairs(count: int) -> str:
    return f"{count} pair" if count == 1 else f"{count} pairs"


def _rows(first: ArmReport, second: ArmReport) -> Iterator[tuple[str, str, tuple[str, str]]]:
    yield "time of a request", "speed", (spread(first.seconds), spread(second.seconds))
    yield DETAILS["ttft_speed"], "ttft_speed", (spread(first.ttft), spread(second.ttft))
    yield DETAILS["prefill_rate"], "prefill_rate", (rate_spread(first.prefill), rate_spread(second.prefill))
    yield DETAILS["decode_rate"], "decode_rate", (rate_spread(first.decode), rate_spread(second.decode))
    yield "load", "", (seconds(first.load_seconds), seconds(second.load_seconds))
    variation = tuple(
        percent(arm.seconds.deviation / arm.seconds.mean) if arm.seconds and arm.seconds.deviation else "–"
        for arm in (first, second)
    )
    yield "spread between blocks", "", (variation[0], variation[1])


def choice_lines(outcome: Outcome, written: Path | None, *, planned: bool) -> Iterator[str]:
    """What is kept, where it stands, and how to use it."""
    kept = "Use the planned settings" if planned else f"Keep the settings of {outcome.chosen}"
    yield f"{kept}: {outcome.reason}."
    if written is None:
        return
    yield f"Wrote {written}."
    if written.suffix == ".sh":
        yield f"Start the server with them: {shlex.quote(str(written.resolve()))}"

"""A benchmark's report for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from velollm_core.benchmark.metrics import ITL_FORMULA, METRICS, SYSTEM_RATE_FORMULA
from velollm_core.views.figures import rate, rate_spread, seconds, spread

if TYPE_CHECKING:
    from rich.console import Console

    from velollm_core.benchmark.cost import GeneratorCost
    from velollm_core.benchmark.load import Load
    from velollm_core.benchmark.load_report import LoadReport
    from velollm_core.benchmark.noise import Noise
    from velollm_core.benchmark.report import Report, TaskReport

SHOWN = ("ttft", "tpot", "e2e", "decode_rate", "prefill_rate")
# Where the generator may be late, what it adds and what the server takes are told apart.
SENT = ("ttft_sent", "e2e_sent")
LABELS = {
    "ttft": "TTFT",
    "ttft_sent": "TTFT from the real send",
    "ttfo": "TTFO",
    "tpot": "TPOT",
    "e2e": "E2E",
    "e2e_sent": "E2E from the real send",
    "decode_rate": "decode tokens/s",
    "prefill_rate": "prefill tokens/s",
    "server_prefill_rate": "prefill tokens/s, server's clock",
    "server_decode_rate": "decode tokens/s, server's clock",
}


def show_report(screen: Console, report: Report, *, verbose: bool = False) -> None:
    """Print the figures, the formulas behind them, and what a reader must know beside them."""
    version = report.environment.backend_version
    where = f"{report.backend} {version or ''}".rstrip()
    kind = "under load" if report.load else f"{report.workload.name} suite"
    screen.print(f"[bold]{report.model}[/bold] on {where}, {kind}", soft_wrap=True)
    for line in context_lines(report):
        screen.print(f"  {line}", markup=False, soft_wrap=True)
    screen.print()
    if report.plausibility is not None and report.plausibility.verdict == "impossible":
        screen.print(f"NOT VALID: {report.plausibility.text}.\n", style="bold red", markup=False, soft_wrap=True)
    for task in report.tasks:
        screen.print(task_title(task), style="bold", markup=False, soft_wrap=True)
        for line in failure_lines(report, task):
            screen.print(line, markup=False, soft_wrap=True)
        screen.print(task_table(task, _names(report, task, verbose=verbose), verbose=verbose))
        screen.print()
    if report.load is not None:
        for line in load_lines(report.load):
            screen.print(line, markup=False, soft_wrap=True)
        if report.generator is not None:
            screen.print(cost_line(report.generator), markup=False, soft_wrap=True)
        screen.print()
    for line in formula_lines(report, verbose=verbose):
        screen.print(line, markup=False, style="dim", soft_wrap=True)
    screen.print()
    for line in verdict_lines(report):
        screen.print(line, markup=False, soft_wrap=True)


def _names(report: Report, task: TaskReport, *, verbose: bool) -> frozenset[str]:
    """The metrics that are worth a row: those that may differ from one that has a row already."""
    if verbose:
        return frozenset(task.metrics)
    names = {*SHOWN}
    if report.workload.load is not None and report.workload.load.arrivals is not None:
        names.update(SENT)
    first, output = task.metrics.get("ttft"), task.metrics.get("ttfo")
    if first is not None and output is not None and output.p50 > first.p50:
        names.add("ttfo")
    return frozenset(names & task.metrics.keys())


def failure_lines(report: Report, task: TaskReport) -> Iterator[str]:
    """The first failure of each kind, in its own words."""
    for kind in task.failures:
        failures = (sample.timing.failure for sample in report.samples if sample.task == task.name)
        first = next((each.message for each in failures if each is not None and each.kind == kind), None)
        if first is not None:
            yield f"  {kind}: {first}"


def task_table(task: TaskReport, names: frozenset[str], *, verbose: bool = False) -> Table:
    """One task's figures of ``names``: median, least and most, with the number of values."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "median (least–most)", "n"):
        table.add_column(name, justify="right" if name == "n" else "left")
    if verbose:
        for name in ("mean", "p90", "p99", "median, 95%"):
            table.add_column(name)
    for metric in METRICS:
        figures = task.metrics.get(metric.name)
        if figures is None or metric.name not in names:
            continue
        one = seconds if metric.unit == "s" else rate
        whole = spread if metric.unit == "s" else rate_spread
        row = [LABELS[metric.name], whole(figures), str(figures.n)]
        if verbose:
            held = figures.p50_interval
            row += [one(figures.mean), one(figures.p90), one(figures.p99)]
            row.append(f"{one(held.low)}–{one(held.high)}" if held else "–")
        table.add_row(*row)
    if task.itl is not None:
        chunk = f"; {task.tokens_per_chunk:.2f} tokens a chunk" if task.tokens_per_chunk else ""
        table.add_row("ITL", f"{spread(task.itl)}{chunk}", str(task.itl.n))
    if task.tokens_per_second is not None:
        table.add_row("system tokens/s", rate(task.tokens_per_second), str(task.succeeded))
    return table


def context_lines(report: Report) -> Iterator[str]:
    """Load, warm-up and load on the server, a line each."""
    warm_up = report.warm_up
    load = f"load {seconds(warm_up.load_seconds)} by the server's clock, " if warm_up.load_seconds else ""
    yield f"{load}first request {seconds(warm_up.first_seconds)} (apart from all figures below)"
    state = "steady" if warm_up.stable else "not steady"
    yield f"warm-up: {state} after {warm_up.requests} requests ({warm_up.rule})"
    users = report.workload.concurrency
    asked = report.workload.load
    if asked is not None and asked.arrivals is not None:
        yield f"open loop: {asked.arrivals}"
        return
    if asked is not None:
        yield f"closed loop: {_closed(asked, users)}"
        return
    yield f"{users} request at a time" if users == 1 else f"{users} requests at a time"


def _closed(load: Load, users: int) -> str:
    parts = ["1 user" if users == 1 else f"{users} users"]
    if load.think:
        parts.append(f"who think {seconds(load.think)} before they ask again")
    if load.turns > 1:
        parts.append(f"in conversations of {load.turns} turns")
    return ", ".join(parts)


def load_lines(load: LoadReport) -> Iterator[str]:
    """Rates, lateness, the steady window and goodput of a load."""
    if load.planned_rate is not None:
        yield (
            f"Sent {load.sent} requests, {rate(load.sent_rate)}/s of {rate(load.planned_rate)}/s planned; "
            f"the generator was late by {spread(load.lateness)}."
        )
    else:
        yield f"Sent {load.sent} requests, {rate(load.sent_rate)}/s; {load.most_in_flight} at a time at most."
    window = load.window
    if window.steady:
        left = f"{window.dropped} of {load.sent} requests are ramp or tail and left out"
        yield f"Steady for {seconds(window.seconds)}; {left}."
    else:
        yield f"No steady window: {window.reason}. All figures are of the whole run."
    if load.planned_rate is not None:
        yield f"Saturation: {load.saturation.text}."
    yield f"Answered {rate(load.requests_per_second)} requests/s and {rate(load.tokens_per_second)} tokens/s."
    if load.slo is not None:
        asked = {"TTFT": load.slo.ttft, "TPOT": load.slo.tpot, "E2E": load.slo.e2e}
        limits = ", ".join(f"{name} ≤ {seconds(limit)}" for name, limit in asked.items() if limit is not None)
        yield f"Goodput: {rate(load.goodput)} requests/s within {limits}."


def cost_line(cost: GeneratorCost) -> str:
    """What the generator adds, as calibrated just before the run."""
    return (
        f"The generator itself, reading {cost.streams} at a time: adds {seconds(cost.delay_p50)} to a chunk (p99 "
        f"{seconds(cost.delay_p99)}), {seconds(cost.first_p50)} to a TTFT (p99 {seconds(cost.first_p99)}); "
        f"{cost.cpu_seconds:.3g} CPU seconds for 100 000 chunks."
    )


def formula_lines(report: Report, *, verbose: bool = False) -> Iterator[str]:
    """How each figure shown was made."""
    present = {name for task in report.tasks for name in _names(report, task, verbose=verbose)}
    for metric in METRICS:
        if metric.name in present:
            yield f"{LABELS[metric.name]} = {metric.formula}"
    yield f"ITL = {ITL_FORMULA}; system tokens/s = {SYSTEM_RATE_FORMULA}"
    yield "Tokens are the server's own count. Percentiles by nearest rank; p90 from 10 values, p99 from 100."


def verdict_lines(report: Report) -> Iterator[str]:
    """Cache, noise, plausibility and notes."""
    cache = report.cache
    if cache.state == "cold":
        allowed = f", the template's own prefix being at most {cache.allowance}" if cache.cached_tokens else ""
        yield f"Cache: cold, {cache.cached_tokens} prompt tokens cached at most{allowed}."
    yield noise_line(report.noise)
    if report.plausibility is not None:
        text = report.plausibility.text
        yield f"Plausibility: {text}" if text.endswith("?") else f"Plausibility: {text}."
    for note in report.notes:
        yield f"Note: {note}."


def noise_line(noise: Noise) -> str:
    """The verdict on the machine with its causes."""
    causes = f": {'; '.join(noise.causes)}" if noise.causes else ""
    drift = f", reference work drifted {noise.canary_drift:.1%} at most" if noise.canary_drift is not None else ""
    return f"Noise: {noise.verdict}{causes or drift}."


def task_title(task: TaskReport) -> str:
    """The task, what became of its requests, and how long they were."""
    failed = ", ".join(f"{count} {kind}" for kind, count in task.failures.items())
    state = f"{task.succeeded} of {task.requests} requests" + (f"; failed: {failed}" if failed else "")
    prompt = f", {task.prompt_tokens.p50:.0f} prompt tokens" if task.prompt_tokens else ""
    return f"{task.name} ({state}{prompt}, {task.completion_tokens} tokens produced)"

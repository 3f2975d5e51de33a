"""What a report tells in rows, for every format that has tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from velollm_core.benchmark.metrics import ITL_FORMULA, METRICS, SYSTEM_RATE_FORMULA
from velollm_core.benchmark.metrics import e2e as e2e_of
from velollm_core.benchmark.metrics import tpot as tpot_of
from velollm_core.benchmark.metrics import ttft as ttft_of
from velollm_core.benchmark.percentiles import Percentiles
from velollm_core.benchmark.report import TaskReport
from velollm_core.report.dossier import Dossier, Line
from velollm_core.views.figures import percent, rate, ratio_interval, seconds
from velollm_core.views.measurement import LABELS, SHOWN

RAW_ROWS = 2000
FIGURES = ("median", "95% interval", "p90", "p99", "n")


@frozen
class Table:
    """``rows`` under ``columns``; the first column names the row. ``numbers`` are the columns set flush right."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


def figures_table(dossier: Dossier, task: str) -> Table:
    """The figures of one task that are asked for most, a row for each line of the report, with formulas."""
    several = len(dossier.lines) > 1
    rows = _metric_rows(dossier, task, SHOWN)
    for line, found in _of(dossier, task):
        side = _side(line, several=several)
        if found.itl is not None:
            chunk = f"; {found.tokens_per_chunk:.2f} tokens a chunk" if found.tokens_per_chunk else ""
            rows.append(("ITL", *side, *_figures(found.itl, is_time=True), ITL_FORMULA + chunk))
    for line, found in _of(dossier, task):
        if found.tokens_per_second is not None:
            row = (rate(found.tokens_per_second), "–", "–", "–", str(found.succeeded))
            rows.append(("system tokens/s", *_side(line, several=several), *row, SYSTEM_RATE_FORMULA))
    return _figures_under(f"Figures of {task}", rows, several=several)


def further_table(dossier: Dossier, task: str) -> Table | None:
    """The other figures of one task: by the server's clock, from the real send; None without any."""
    rows = _metric_rows(dossier, task, tuple(name for name in LABELS if name not in SHOWN))
    return _figures_under(f"Further figures of {task}", rows, several=len(dossier.lines) > 1) if rows else None


def requests_table(dossier: Dossier) -> Table:
    """What became of the requests of each task."""
    rows = []
    for line in dossier.lines:
        for task in line.tasks:
            failed = ", ".join(f"{count} {kind}" for kind, count in task.failures.items()) or "none"
            prompt = f"{task.prompt_tokens.p50:.0f}" if task.prompt_tokens else "unknown"
            rows.append((task.name, line.name, f"{task.succeeded} of {task.requests}", failed, str(task.short), prompt))
    columns = ("task", "side", "succeeded", "failures by kind", "ended early", "prompt tokens")
    return Table("Requests and what became of them", columns, tuple(rows), frozenset({2, 4, 5}))


def comparisons_table(dossier: Dossier) -> Table | None:
    """Each comparison with the figures behind its verdict; None where nothing was compared."""
    if not dossier.comparisons:
        return None
    rows = tuple(
        (
            name,
            each.verdict.replace("_", " "),
            f"{each.ratio:.3f}",
            ratio_interval(each.interval),
            str(each.pairs),
            "unknown" if each.minimum_detectable_effect is None else percent(each.minimum_detectable_effect),
        )
        for name, each in dossier.comparisons
    )
    columns = ("figure", "verdict", "ratio", "95% interval", "n", "detectable effect")
    return Table("Ratios of speed; above 1 the second is faster", columns, rows, frozenset({2, 3, 4, 5}))


def choices_table(dossier: Dossier) -> Table | None:
    """The settings in which the sides differ or which a plan states; None without any."""
    if not dossier.choices:
        return None
    sides = dossier.columns or dossier.names
    first, second = (*sides, "first", "second")[:2] if len(sides) > 1 else ("first", "second")
    rows = tuple((each.name, each.first, each.second, each.reason) for each in dossier.choices)
    caption = "What differs between the files" if dossier.columns else "Settings compared"
    return Table(caption, ("setting", first, second, "reason"), rows)


def facts_table(dossier: Dossier) -> Table:
    """Machine, engine and workload."""
    columns = dossier.columns or ("value",)
    rows = tuple((fact.name, *(fact.values if fact.differs else fact.values * len(columns))) for fact in dossier.facts)
    return Table("Environment", ("", *columns), rows)


def noise_table(dossier: Dossier) -> Table | None:
    """The verdict on the machine, block by block; None where no block was finished."""
    rows = tuple(
        (
            str(block.index),
            block.arm,
            seconds(block.began),
            block.noise.verdict,
            percent(block.noise.canary_drift),
            "; ".join((*block.noise.causes, *map(str, block.gpus))) or "–",
        )
        for course in dossier.courses
        for block in course.blocks
    )
    if not rows:
        return None
    columns = ("block", "configuration", "began", "noise", "reference work drifted", "causes and GPUs")
    return Table("Noise of each block", columns, rows, frozenset({2, 4}))


def raw_table(dossier: Dossier) -> Table:
    """Every request, the first of them where there are very many; all are in the file of samples."""
    rows = list(_raw(dossier))
    left = f"; {len(rows) - RAW_ROWS} more are in the file of samples" if len(rows) > RAW_ROWS else ""
    columns = ("request", "side", "sent", "TTFT", "TPOT", "E2E", "tokens", "chunks", "result")
    return Table(f"Every request{left}", columns, tuple(rows[:RAW_ROWS]), frozenset(range(2, 8)))


def _metric_rows(dossier: Dossier, task: str, names: Sequence[str]) -> list[tuple[str, ...]]:
    return [
        (
            LABELS[metric.name],
            *_side(line, several=len(dossier.lines) > 1),
            *_figures(values, is_time=metric.unit == "s"),
            metric.formula,
        )
        for metric in METRICS
        if metric.name in names
        for line, found in _of(dossier, task)
        if (values := found.metrics.get(metric.name)) is not None
    ]


def _figures_under(caption: str, rows: Sequence[tuple[str, ...]], *, several: bool) -> Table:
    columns = ("figure", *(("side",) if several else ()), *FIGURES, "formula")
    first = columns.index("median")
    return Table(caption, columns, tuple(rows), frozenset(range(first, first + len(FIGURES))))


def _raw(dossier: Dossier) -> Iterator[tuple[str, ...]]:
    for line in dossier.lines:
        for sample in line.samples:
            timing = sample.timing
            tokens = timing.completion_tokens
            result = timing.failure.kind if timing.failure else timing.finish_reason or "finished"
            yield (
                f"{sample.task} {sample.index + 1}",
                line.name,
                f"{timing.sent:.3f} s",
                *(seconds(of(timing)) for of in (ttft_of, tpot_of, e2e_of)),
                "–" if tokens is None else str(tokens),
                str(len(timing.arrivals)),
                result,
            )


def _of(dossier: Dossier, name: str) -> Iterator[tuple[Line, TaskReport]]:
    for line in dossier.lines:
        for task in line.tasks:
            if task.name == name:
                yield line, task


def _side(line: Line, *, several: bool) -> Sequence[str]:
    return (line.name,) if several else ()


def _figures(values: Percentiles, *, is_time: bool) -> tuple[str, ...]:
    shown = seconds if is_time else rate
    held = values.p50_interval
    interval = f"{shown(held.low)} – {shown(held.high)}" if held else "–"
    return shown(values.p50), interval, shown(values.p90), shown(values.p99), str(values.n)

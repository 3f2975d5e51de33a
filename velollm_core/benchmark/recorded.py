"""Comparing what was kept in files: pairs within one experiment, or runs of two files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from attrs import frozen

from velollm_core.benchmark.comparison import Comparison, compare_pairs, compare_strata
from velollm_core.benchmark.metrics import decode_rate, prefill_rate, ttft
from velollm_core.benchmark.pair import Pair, Score, pair_up, speed, work_seconds
from velollm_core.benchmark.quality import UNGUARDED, Guarded
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.side import Side, describe_side, machine_drift, side_notes, unknown_starts
from velollm_core.benchmark.store import RunLog, read_runs
from velollm_core.errors import VeloError

PAIR_FIGURES: Mapping[str, Callable[[Score], float | None]] = {
    "speed": speed,
    "decode_rate": lambda score: score.decode,
    "prefill_rate": lambda score: score.prefill,
    "ttft_speed": lambda score: 1 / score.ttft if score.ttft else None,
}
SAMPLE_FIGURES: Mapping[str, Callable[[Sample], float | None]] = {
    "speed": lambda sample: _inverse(work_seconds(sample)),
    "decode_rate": lambda sample: decode_rate(sample.timing),
    "prefill_rate": lambda sample: prefill_rate(sample.timing),
    "ttft_speed": lambda sample: _inverse(ttft(sample.timing)),
}


@frozen
class Judgement:
    """Two sides, the comparison of their speed that decides, and further ones: by other figures, and by task.

    ``guarded`` is whether both gave the same answers, which only an experiment with both can tell.
    """

    first: Side
    second: Side
    comparison: Comparison
    details: tuple[Comparison, ...]
    tasks: Mapping[str, Comparison]
    guarded: Guarded = UNGUARDED


def judge_pairs(pairs: Sequence[Pair], names: tuple[str, str], notes: Sequence[str] = ()) -> tuple[Comparison, ...]:
    """The comparisons of ``pairs`` by each figure that they have, speed first; empty without any."""
    found = []
    for metric, figure in PAIR_FIGURES.items():
        ratios = [pair.log_ratio(*names, figure) for pair in pairs]
        known = [ratio for ratio in ratios if ratio is not None]
        if known:
            found.append(compare_pairs(metric, known, notes=notes if metric == "speed" else ()))
    return tuple(found)


def judge_experiment(path: Path) -> Judgement:
    """Judge a file in which one experiment keeps both its arms.

    Raises:
        VeloError: the file does not hold two arms, or no whole pair of them.
    """
    runs = read_runs(path)
    arms = list(dict.fromkeys(name for run in runs for name in run.head.get("arms", {})))
    if len(arms) != 2:
        raise VeloError(f"{path}: holds {len(arms) or 'no'} named configurations, not two; give a second file")
    pairs = [pair for run in runs for pair in pair_up(run.samples, run.blocks)]
    found = judge_pairs(pairs, (arms[0], arms[1]))
    if not found:
        raise VeloError(f"{path}: holds no whole pair of blocks")
    first, second = (
        describe_side(name, runs, [s for run in runs for s in run.samples if s.arm == name]) for name in arms
    )
    # A run that goes on where another was stopped has compared them anew.
    guarded = next((run.guarded for run in reversed(runs) if run.guarded != UNGUARDED), UNGUARDED)
    return Judgement(first, second, found[0], found[1:], {}, guarded)


def judge_files(first: Path, second: Path) -> Judgement:
    """Judge two files of runs that were not interleaved; several runs in a file are its independent repetitions.

    Raises:
        VeloError: they were not asked the same, or too much failed to compare anything.
    """
    sides = [_single(path) for path in (first, second)]
    names = _names(first, second)
    tasks = _common_tasks(first, second, *sides)
    described = [describe_side(name, runs, _measured(runs)) for name, runs in zip(names, sides, strict=True)]
    drift = machine_drift(*sides)
    notes = list(side_notes(described, sides, drift))
    extra = drift + unknown_starts(sides)
    found: list[Comparison] = []
    by_task: dict[str, Comparison] = {}
    for metric, figure in SAMPLE_FIGURES.items():
        strata = {task: groups for task in tasks if (groups := _groups(sides, task, figure))}
        if not strata:
            continue
        found.append(compare_strata(metric, list(strata.values()), extra=extra, notes=notes if not found else ()))
        if metric == "speed":
            by_task = {task: compare_strata(task, [groups], extra=extra) for task, groups in strata.items()}
    if not found or found[0].metric != "speed":
        raise VeloError(f"{first} and {second}: no task was timed in both")
    return Judgement(described[0], described[1], found[0], tuple(found[1:]), by_task)


def _single(path: Path) -> list[RunLog]:
    runs = read_runs(path)
    if any(len(run.head.get("arms", {})) > 1 for run in runs):
        raise VeloError(f"{path}: holds an experiment with both its configurations; compare it alone")
    for run in runs:
        if run.impossible is not None:
            raise VeloError(f"{path}: holds a run that cannot be ({run.impossible}); it is compared with nothing")
    return runs


def _names(first: Path, second: Path) -> tuple[str, str]:
    return (first.stem, second.stem) if first.stem != second.stem else (str(first), str(second))


def _measured(runs: Iterable[RunLog]) -> list[Sample]:
    return [sample for run in runs for sample in run.samples if not sample.warm_up]


def _common_tasks(first: Path, second: Path, one: Sequence[RunLog], other: Sequence[RunLog]) -> list[str]:
    for path, runs in ((first, one), (second, other)):
        if not _measured(runs):
            raise VeloError(f"{path}: holds no finished request, so there is nothing to compare; measure again with -o")
    asked = [_asked(runs) for runs in (one, other)]
    for path, (warm, _) in zip((first, second), asked, strict=True):
        if len(warm) > 1:
            raise VeloError(f"{path}: holds runs with warm and with cold caches, which cannot be compared")
    if asked[0][0] != asked[1][0]:
        raise VeloError(f"{first} and {second}: one was measured with a warm cache, the other without")
    common = [task for task, tokens in asked[0][1].items() if asked[1][1].get(task) == tokens]
    if not common:
        raise VeloError(f"{first} and {second}: were not asked the same; no task has the same name and length in both")
    for path, runs in ((first, one), (second, other)):
        for task in common:
            samples = [sample for sample in _measured(runs) if sample.task == task]
            failed = [sample.timing.failure for sample in samples if sample.timing.failure]
            if 2 * len(failed) > len(samples):
                raise VeloError(
                    f"{path}: {len(failed)} of {len(samples)} requests of {task} failed ({failed[0].message})"
                )
    return common


def _asked(runs: Sequence[RunLog]) -> tuple[set[bool], dict[str, tuple[int, int]]]:
    warm = {bool(run.head["workload"].get("warm_cache")) for run in runs}
    users = max(int(run.head["workload"].get("concurrency", 1)) for run in runs)
    return warm, {sample.task: (sample.max_tokens, users) for sample in _measured(runs)}


def _groups(
    sides: Sequence[Sequence[RunLog]], task: str, figure: Callable[[Sample], float | None]
) -> tuple[list[float], list[float]] | None:
    """The logs of a figure on either side: one for each run where both sides have several, else for each request."""
    repeated = all(len(runs) > 1 for runs in sides)
    groups = []
    for runs in sides:
        logs = [
            [math.log(value) for s in run.samples if s.counts and s.task == task and (value := figure(s))]
            for run in runs
        ]
        known = [values for values in logs if values]
        groups.append([fmean(values) for values in known] if repeated else [value for each in known for value in each])
    return (groups[0], groups[1]) if all(groups) else None


def _inverse(seconds: float | None) -> float | None:
    return 1 / seconds if seconds else None

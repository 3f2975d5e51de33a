"""From what was measured and kept to what a report tells."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.benchmark.load_report import in_window
from velollm_core.benchmark.noise import overall
from velollm_core.benchmark.pair import pair_up
from velollm_core.benchmark.recorded import Judgement
from velollm_core.benchmark.report import report_task
from velollm_core.benchmark.steady import find_window
from velollm_core.benchmark.store import RunLog, read_runs
from velollm_core.errors import VeloError
from velollm_core.report.dossier import Choice, Course, Dossier, Line, LoadPoint
from velollm_core.report.facts import differences, facts_of, load_of
from velollm_core.report.standing import of_comparison, of_measurement
from velollm_core.views.comparison import DETAILS

if TYPE_CHECKING:
    from velollm_core.backends.setting import Setting
    from velollm_core.benchmark.arm import Arm
    from velollm_core.benchmark.comparison import Comparison
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.sample import Sample

DEFAULT = "engine's default"


def tell_measurement(path: Path, report: Report | None = None) -> Dossier:
    """One backend as measured: a line for each load that the runs of the file ``path`` were made under.

    ``report`` is that of the last of them, for what samples alone do not tell.

    Raises:
        VeloError: the file cannot be read, or holds no finished request.
    """
    runs = read_runs(path)
    arms = dict.fromkeys(sample.arm for run in runs for sample in _measured(run))
    several = len(arms) > 1
    keys = {run.run: load_of(run.head) for run in runs}
    ordered = sorted(set(keys.values()), key=lambda load: load[1])
    names = [(f"{arm}, {load}" if several else load) for load, _ in ordered for arm in arms]
    named = [
        (run, sample, f"{sample.arm}, {keys[run.run][0]}" if several else keys[run.run][0])
        for run in runs
        for sample in _measured(run)
    ]
    lines = _lines(names, named, path)
    standing, headline, sentences = of_measurement(runs, lines, report)
    head = runs[-1].head
    version = (head.get("environment") or {}).get("backend_version") or ""
    return Dossier(
        title=f"{head.get('model')} on {head.get('backend')} {version}".rstrip(),
        standing=standing,
        headline=headline,
        sentences=sentences,
        lines=lines,
        courses=_courses(runs[-1:], named, lines),
        points=_points({"measured": runs}),
        columns=(),
        facts=facts_of([head]),
        files=(path.name,),
    )


def tell_judgement(judgement: Judgement, first: Path, second: Path | None = None) -> Dossier:
    """Two files compared, or the two configurations of the one experiment that ``first`` holds.

    Raises:
        VeloError: a file cannot be read, or holds no finished request.
    """
    tasks = list(judgement.tasks.items())
    comparisons = [judgement.comparison, *judgement.details]
    if second is None:
        notes = (*judgement.comparison.notes, *judgement.guarded.notes(judgement.first.name))
        comparisons[0] = evolve(judgement.comparison, notes=notes)
        arms = (judgement.first.name, judgement.second.name)
        return tell_experiment(first, comparisons, arms=arms, tasks=tasks)
    sides = {judgement.first.name: read_runs(first), judgement.second.name: read_runs(second)}
    named = [(run, sample, name) for name, runs in sides.items() for run in runs for sample in _measured(run)]
    lines = _lines(list(sides), named, first)
    facts = facts_of([runs[-1].head for runs in sides.values()])
    standing, headline, sentences = of_comparison(judgement.comparison, *sides)
    return Dossier(
        title=f"{judgement.second.name} against {judgement.first.name}",
        standing=standing,
        headline=headline,
        sentences=sentences,
        lines=lines,
        courses=_courses([runs[-1] for runs in sides.values()], named, lines),
        points=_points(sides),
        columns=tuple(sides),
        facts=facts,
        comparisons=_titled(comparisons, tasks),
        choices=differences(facts),
        files=(first.name, second.name),
    )


def tell_experiment(
    path: Path,
    comparisons: Sequence[Comparison],
    *,
    arms: tuple[str, str] | tuple[Arm, Arm],
    reason: str | None = None,
    tasks: Sequence[tuple[str, Comparison]] = (),
) -> Dossier:
    """One experiment with both its configurations in the file ``path``, judged by ``comparisons``, the first decides.

    ``arms`` are names, or, where the reasons of their settings shall be told, the arms themselves. ``reason`` says what
    follows from the verdict, or why there is none.

    Raises:
        VeloError: the file cannot be read, or holds no finished request.
    """
    runs = read_runs(path)
    first, second = (arm if isinstance(arm, str) else arm.name for arm in arms)
    named = [(run, sample, sample.arm) for run in runs for sample in _measured(run)]
    lines = _lines([first, second], named, path)
    standing, headline, sentences = of_comparison(comparisons[0] if comparisons else None, first, second, reason)
    head = runs[-1].head
    return Dossier(
        title=f"{second} against {first}: {head.get('model')} on {head.get('backend')}",
        standing=standing,
        headline=headline,
        sentences=sentences,
        lines=lines,
        courses=_courses(runs[-1:], named, lines),
        points=(),
        columns=(),
        facts=facts_of([head]),
        comparisons=_titled(comparisons, tasks),
        pairs=tuple(pair for run in runs for pair in pair_up(run.samples, run.blocks)),
        choices=_choices(head, arms),
        files=(path.name,),
    )


def _measured(run: RunLog) -> list[Sample]:
    return [sample for sample in run.samples if not sample.warm_up]


def _steady(run: RunLog, samples: Sequence[Sample]) -> Sequence[Sample]:
    """What lies in the steady window of a load, as the measurement itself has it; all samples of a list of tasks."""
    workload = run.head.get("workload") or {}
    load = workload.get("load")
    if not isinstance(load, dict):
        return samples
    window = find_window(samples, int(workload.get("concurrency") or 1), open_loop=bool(load.get("arrivals")))
    return in_window(samples, window)


def _lines(names: Sequence[str], named: Sequence[tuple[RunLog, Sample, str]], path: Path) -> tuple[Line, ...]:
    lines = []
    for name in dict.fromkeys(names):
        mine = [(run, sample) for run, sample, whose in named if whose == name]
        if not mine:
            continue
        places = {(run.run, sample.block, sample.arm) for run, sample in mine}
        runs = {run.run: run for run, _ in mine}.values()
        noise = overall(b.noise for run in runs for b in run.blocks if (run.run, b.index, b.arm) in places)
        samples = tuple(sample for _, sample in mine)
        steady = tuple(s for run in runs for s in _steady(run, [sample for owner, sample in mine if owner is run]))
        ordered = dict.fromkeys(sample.task for sample in steady)
        tasks = tuple(report_task(task, [s for s in steady if s.task == task], noise) for task in ordered)
        if len(runs) > 1 or any(sample.arm != samples[0].arm for run in runs for sample in run.samples):
            # Each run has a clock of its own, and between an arm's blocks the other is measured: no rate for those.
            tasks = tuple(evolve(task, tokens_per_second=None) for task in tasks)
        lines.append(Line(name, samples, tasks, steady))
    if not lines:
        raise VeloError(f"{path}: holds no finished request; there is nothing to report")
    return tuple(lines)


def _courses(
    runs: Sequence[RunLog], named: Sequence[tuple[RunLog, Sample, str]], lines: Sequence[Line]
) -> tuple[Course, ...]:
    places = {line.name: index for index, line in enumerate(lines)}
    return tuple(
        Course(
            run.run,
            tuple((sample, places[name]) for owner, sample, name in named if owner is run and name in places),
            tuple(run.blocks),
        )
        for run in runs
    )


def _points(curves: Mapping[str, Sequence[RunLog]]) -> tuple[LoadPoint, ...]:
    """A point for each task of each run; empty unless some curve has two loads."""
    if all(len({load_of(run.head) for run in runs}) < 2 for runs in curves.values()):
        return ()
    return tuple(
        point for curve, runs in curves.items() for run in sorted(runs, key=_size) for point in _run_points(curve, run)
    )


def _size(run: RunLog) -> float:
    return load_of(run.head)[1]


def _run_points(curve: str, run: RunLog) -> Iterable[LoadPoint]:
    quiet = overall([])
    ordered = sorted(_steady(run, _measured(run)), key=lambda sample: sample.task)
    for task, group in groupby(ordered, key=lambda sample: sample.task):
        found = report_task(task, list(group), quiet)
        ttft, e2e = found.metrics.get("ttft"), found.metrics.get("e2e")
        if found.tokens_per_second is not None and ttft is not None:
            load, size = load_of(run.head)
            yield LoadPoint(curve, task, load, size, found.tokens_per_second, ttft.p50, e2e.p50 if e2e else None)


def _titled(
    comparisons: Sequence[Comparison], tasks: Sequence[tuple[str, Comparison]]
) -> tuple[tuple[str, Comparison], ...]:
    by_figure = [(DETAILS.get(each.metric, each.metric), each) for each in comparisons]
    return (*by_figure, *((f"speed of {name}", each) for name, each in tasks))


def _choices(head: Mapping[str, object], arms: tuple[str, str] | tuple[Arm, Arm]) -> tuple[Choice, ...]:
    recorded = head.get("arms")
    kept: Mapping[str, Mapping[str, object]] = recorded if isinstance(recorded, dict) else {}
    sides = [kept.get(arm, {}) if isinstance(arm, str) else {s.name: s.value for s in arm.settings} for arm in arms]
    settings: list[Setting] = [each for arm in arms if not isinstance(arm, str) for each in arm.settings]
    reasons = {each.name: f"{each.reason} ({each.evidence})" for each in settings}
    return tuple(
        Choice(name, _value(sides[0], name), _value(sides[1], name), reasons.get(name, "not recorded"))
        for name in dict.fromkeys(name for side in sides for name in side)
    )


def _value(side: Mapping[str, object], name: str) -> str:
    return str(side[name]) if name in side else DEFAULT

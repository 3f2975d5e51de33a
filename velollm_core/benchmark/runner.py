"""The core's own way to measure any backend."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.benchmark.asking import Asking
from velollm_core.benchmark.circumstances import CURRENT
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.load_report import LoadReport, in_window, report_load
from velollm_core.benchmark.loop import Loop
from velollm_core.benchmark.noise import overall
from velollm_core.benchmark.patience import Patience
from velollm_core.benchmark.prompts import filler
from velollm_core.benchmark.report import Report, TaskReport, judge_cache, notes, report_task
from velollm_core.benchmark.session import CHARACTERS_A_TOKEN, Session
from velollm_core.benchmark.suites import standard
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.benchmark.circumstances import Circumstances
    from velollm_core.benchmark.load import Load
    from velollm_core.benchmark.sample import Sample


async def run(backend: Backend, workload: Workload, circumstances: Circumstances | None = None) -> Report:
    """Measure ``backend`` under ``workload``: load apart, warm up until steady, then each task as a block of its own.

    Requests that fail are counted by kind. Cancelled while it measures, it reports what was finished. ``circumstances``
    default to those of the context, and a status is asked for where they hold none.

    Raises:
        BackendError: not one request succeeded; the text carries the first reason.
    """
    workload = _with_tasks(workload)
    under = circumstances or CURRENT.get()
    environment = describe(backend.name, under.status or await backend.status(), under.hardware)
    session = Session(backend, workload, under)
    warm_up = await session.warm_up(under.rule)
    load = None
    with undisturbed():
        if workload.load is not None:
            tasks, load = await _measure_load(session, workload.load)
        else:
            tasks = await _measure_tasks(session)
    check_answered(backend.name, session.samples, stopped=session.stopped)
    cache = judge_cache(session.samples, max(1, warm_up.overhead_tokens or 0))
    return Report(
        backend=backend.name,
        model=workload.model,
        workload=workload,
        environment=environment,
        warm_up=warm_up,
        tasks=tuple(tasks),
        cache=cache,
        noise=overall(block.noise for block in session.blocks),
        seconds=session.now(),
        load=load,
        stopped=session.stopped,
        notes=(*_endings(session), *notes(session.samples, workload, cache, warm_up)),
        blocks=tuple(session.blocks),
        samples=tuple(session.samples),
    )


async def _measure_tasks(session: Session) -> list[TaskReport]:
    tasks: list[TaskReport] = []
    for task in session.workload.tasks:
        if session.dead or session.stopped:
            break
        if not tasks:
            session.patience = Patience(patient=session.workload.concurrency > 1)
        first, blocks = len(session.samples), len(session.blocks)
        measure = partial(session.bracket, partial(session.until_stopped, partial(session.measure, task)))
        # Stopped while the machine is looked at: what was measured before stands.
        await (session.until_stopped(measure) if tasks else measure())
        # A Ctrl-C that waited for the end of the block comes now.
        await session.until_stopped(partial(asyncio.sleep, 0))
        samples = session.samples[first:]
        if samples and len(session.blocks) > blocks:
            tasks.append(report_task(task.name, samples, session.blocks[-1].noise))
    return tasks


def _endings(session: Session) -> Iterator[str]:
    """Why the run ended before its time, if it did."""
    if session.stopped:
        yield "stopped on request: these are the requests that were finished by then"
    elif session.dead:
        yield f"given up early: {session.patience.reason}"


async def _measure_load(session: Session, load: Load) -> tuple[list[TaskReport], LoadReport | None]:
    if session.dead:
        return [], None
    characters = await session.characters_a_token()
    workload = session.workload
    asking = Asking(load, session.prompts, workload.model, characters, workload.seed, workload.warm_cache)
    session.patience = Patience(patient=True)
    first = len(session.samples)
    # A load may last for hours: it is ended where it stands.
    work = partial(session.until_stopped, Loop(session, load, asking).run)
    _, block = await session.bracket(work, to_its_end=False)
    samples = session.samples[first:]
    if not samples:
        return [], None
    report = report_load(load, samples, workload.concurrency)
    steady = in_window(samples, report.window)
    names = sorted({sample.task for sample in steady}, key=lambda name: (len(name), name))
    groups = ([sample for sample in steady if sample.task == name] for name in names)
    return [report_task(name, group, block.noise) for name, group in zip(names, groups, strict=True)], report


def _with_tasks(workload: Workload) -> Workload:
    if workload.load is not None:
        prompt, answer = workload.load.prompt.middle, workload.load.answer.middle
        task = Task("warm_up", filler(round(prompt * CHARACTERS_A_TOKEN)), answer, 1)
        return evolve(workload, tasks=(task,))
    return workload if workload.tasks else evolve(workload, tasks=standard(workload.model).tasks)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep the garbage collector short while requests are timed: all that is alive now is set aside."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def check_answered(backend: str, samples: list[Sample], *, stopped: bool = False) -> None:
    """Refuse a run in which nothing succeeded; ``stopped`` tells that there was no time for it.

    Raises:
        BackendError: with the first failure's text.
    """
    if any(sample.counts for sample in samples):
        return
    failures = [sample.timing.failure for sample in samples if sample.timing.failure]
    if stopped and not failures:
        raise BackendError(f"{backend}: stopped before a request was finished", kind="stopped")
    reason = failures[0].message if failures else "nothing was sent"
    raise BackendError(f"{backend}: none of {len(samples)} requests succeeded: {reason}", kind="failed")

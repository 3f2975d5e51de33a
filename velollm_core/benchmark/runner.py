"""The core's own way to measure any backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.benchmark.circumstances import CURRENT
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.noise import overall
from velollm_core.benchmark.report import Report, judge_cache, notes, report_task
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.suites import standard
from velollm_core.errors import BackendError

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.benchmark.circumstances import Circumstances
    from velollm_core.benchmark.sample import Sample
    from velollm_core.benchmark.workload import Workload


async def run(backend: Backend, workload: Workload, circumstances: Circumstances | None = None) -> Report:
    """Measure ``backend`` under ``workload``: load apart, warm up until steady, then each task as a block of its own.

    Requests that fail are counted by kind. ``circumstances`` default to those of the context, and a status is asked for
    where they hold none.

    Raises:
        BackendError: not one request succeeded; the text carries the first reason.
    """
    if not workload.tasks:
        workload = evolve(workload, tasks=standard(workload.model).tasks)
    under = circumstances or CURRENT.get()
    environment = describe(backend.name, under.status or await backend.status(), under.hardware)
    session = Session(backend, workload, under)
    warm_up = await session.warm_up(under.rule)
    tasks = []
    for task in workload.tasks:
        if session.dead:
            break
        samples, block = await session.bracket(session.measure(task))
        tasks.append(report_task(task.name, samples, block.noise))
    check_answered(backend.name, session.samples)
    cache = judge_cache(session.samples, max(1, warm_up.overhead_tokens or 0))
    return Report(
        backend=backend.name,
        model=workload.model,
        workload=workload,
        environment=environment,
        warm_up=warm_up,
        tasks=tuple(tasks),
        cache=cache,
        noise=overall(task.noise for task in tasks),
        seconds=session.now(),
        notes=notes(session.samples, workload, cache, warm_up),
        blocks=tuple(session.blocks),
        samples=tuple(session.samples),
    )


def check_answered(backend: str, samples: list[Sample]) -> None:
    """Refuse a run in which nothing succeeded.

    Raises:
        BackendError: with the first failure's text.
    """
    if any(sample.counts for sample in samples):
        return
    failures = [sample.timing.failure for sample in samples if sample.timing.failure]
    reason = failures[0].message if failures else "nothing was sent"
    raise BackendError(f"{backend}: none of {len(samples)} requests succeeded: {reason}", kind="failed")

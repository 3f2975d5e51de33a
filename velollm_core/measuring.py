"""One plain measurement from start to end: load the model where that is ours to do, run, judge, keep."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.backend import Applies
from velollm_core.benchmark.ceiling import decode_ceiling, prefill_ceiling
from velollm_core.benchmark.circumstances import CURRENT, Circumstances
from velollm_core.benchmark.cost import measure_cost
from velollm_core.benchmark.environment import describe
from velollm_core.benchmark.listener import Chorus
from velollm_core.benchmark.metrics import METRICS
from velollm_core.benchmark.plausibility import judge_decode, judge_prefill
from velollm_core.benchmark.store import SampleFile
from velollm_core.connections import allow_connections
from velollm_core.errors import BackendError, VeloError
from velollm_core.interruptible import run_interruptibly
from velollm_core.render import document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.backends.setting import Setting
    from velollm_core.benchmark.cost import GeneratorCost
    from velollm_core.benchmark.plausibility import Plausibility
    from velollm_core.benchmark.report import Report, TaskReport
    from velollm_core.benchmark.workload import Workload
    from velollm_core.choose import ModelChoice
    from velollm_core.target import Target

MOST_STREAMS = 32


@frozen
class Job:
    """What is measured. ``model`` is None where its shape is unknown; ``settings``, if any, are applied before.

    ``limit`` bounds each request in seconds; ``samples`` is the file they go to.
    """

    target: Target
    workload: Workload
    model: ModelChoice | None
    settings: tuple[Setting, ...]
    limit: float
    samples: Path


def measure(job: Job, *, quiet: bool) -> Report:
    """Run the workload under the hook `benchmark`; samples are on disk as they finish.

    Raises:
        VeloError: nothing could be measured, or it was stopped; the text says where the samples are.
    """
    from velollm_core.views.progress import ProgressBar

    status, hardware = job.target.choice.status, job.target.hardware
    allow_connections()
    with ProgressBar(job.workload, shown=not quiet) as bar, SampleFile(job.samples, secrets.token_hex(4)) as file:
        listener = Chorus(file, bar)
        CURRENT.set(Circumstances(status=status, hardware=hardware, listener=listener, limit=job.limit))
        settings = {setting.name: setting.value for setting in job.settings}
        file.begin(job.workload, describe(job.target.choice.backend.name, status, hardware), settings=settings)
        try:
            cost, notes = _calibrated(job.workload)
            report = run_interruptibly(_measured(job))
        except KeyboardInterrupt:
            raise VeloError(f"stopped; the finished samples are in {job.samples}") from None
        plausibility = _plausibility(job, report)
        file.plausibility(plausibility)
    return evolve(report, plausibility=plausibility, generator=cost, notes=(*report.notes, *notes))


def measured_document(report: Report, samples: Path) -> dict[str, object]:
    """The JSON document of a plain measurement; samples stay in their file."""
    return document(
        "benchmark",
        backend=report.backend,
        model=report.model,
        workload=report.workload,
        environment=report.environment,
        warm_up=report.warm_up,
        tasks=report.tasks,
        load=report.load,
        stopped=report.stopped,
        generator=report.generator,
        cache=report.cache,
        noise=report.noise,
        plausibility=report.plausibility,
        seconds=report.seconds,
        notes=report.notes,
        formulas={metric.name: {"unit": metric.unit, "formula": metric.formula} for metric in METRICS},
        samples_file=samples,
    )


async def _measured(job: Job) -> Report:
    backend, running = job.target.choice.backend, job.target.choice.status.running
    applies = backend if isinstance(backend, Applies) and (job.settings or not running) else None
    try:
        if applies is not None and job.model is not None:
            await applies.apply(job.model.spec, job.settings)
        return await job.target.plugins.benchmark(job.target.choice.backend, job.workload)
    finally:
        try:
            # A server of our own only has to end; one that ran before gets back what it ran with.
            if applies is not None and running:
                await applies.roll_back()
        finally:
            await job.target.choice.backend.close()


def _calibrated(workload: Workload) -> tuple[GeneratorCost | None, tuple[str, ...]]:
    """What a load's generator costs, or a note on why that is not known."""
    if workload.load is None:
        return None, ()
    try:
        return run_interruptibly(measure_cost(_streams(workload))), ()
    except BackendError as error:
        # A machine that cannot even run the mock server still has a run worth its figures.
        return None, (f"the generator could not be calibrated: {error}",)


def _streams(workload: Workload) -> int:
    """As many streams as the load is likely to have open, within what a calibration of a second can tell."""
    open_loop = workload.load is not None and workload.load.arrivals is not None
    return 8 if open_loop else min(workload.concurrency, MOST_STREAMS)


def _plausibility(job: Job, report: Report) -> Plausibility:
    decode = _fastest(report.tasks, "decode_rate")
    if job.model is None:
        return judge_decode(decode, None, "the model's shape is unknown")
    spec, hardware = job.model.spec, job.target.hardware
    ceiling = decode_ceiling(spec, hardware, depth=0)
    judged = judge_decode(decode, ceiling.rate, ceiling.basis)
    if judged.verdict == "impossible" or _reuses(report.workload):
        return judged
    longest = max((task.prompt_tokens.p50 for task in report.tasks if task.prompt_tokens), default=0.0)
    if longest < 1:
        return judged
    most = prefill_ceiling(spec, hardware, round(longest))
    return judge_prefill(_fastest(report.tasks, "prefill_rate"), most.rate, most.basis) or judged


def _fastest(tasks: Sequence[TaskReport], metric: str) -> float | None:
    return max((task.metrics[metric].p50 for task in tasks if metric in task.metrics), default=None)


def _reuses(workload: Workload) -> bool:
    """Whether prompts are answered from the cache on purpose."""
    load = workload.load
    return workload.warm_cache or (load is not None and (load.turns > 1 or load.shared > 0))

"""`velollm benchmark`: measure a backend, with everything that a reader needs to trust the figures."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import evolve, frozen

from velollm_core.backends.backend import Applies
from velollm_core.benchmark.ceiling import decode_ceiling
from velollm_core.benchmark.circumstances import CURRENT, Circumstances
from velollm_core.benchmark.listener import Chorus
from velollm_core.benchmark.metrics import METRICS
from velollm_core.benchmark.plausibility import judge_decode
from velollm_core.benchmark.store import SampleFile
from velollm_core.benchmark.suites import standard
from velollm_core.config import state_dir
from velollm_core.errors import VeloError
from velollm_core.interruptible import run_interruptibly
from velollm_core.options import (
    backend_option,
    connection_options,
    json_option,
    model_option,
    output_option,
    use_connection,
    verbose_option,
)
from velollm_core.render import console, document, print_json, to_json, write_text
from velollm_core.target import Target, find_name, find_target

if TYPE_CHECKING:
    from velollm_core.benchmark.environment import Environment
    from velollm_core.benchmark.plausibility import Plausibility
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.workload import Workload
    from velollm_core.choose import ModelChoice


@frozen
class _Job:
    target: Target
    workload: Workload
    model: ModelChoice | None
    limit: float
    samples: Path


@click.command(epilog="Example: velollm benchmark --model model.gguf")
@backend_option
@model_option
@connection_options
@click.option("--concurrency", type=click.IntRange(1, 1024), default=1, help="Users who ask at the same time.")
@click.option("--warm-cache", is_flag=True, help="Repeat prompts on purpose: measures the prefix cache instead.")
@click.option("--timeout", type=click.FloatRange(1), default=600.0, help="Seconds after which a request is given up.")
@click.option("--seed", type=int, default=0, help="Orders and varies the prompts.")
@output_option
@json_option
@verbose_option
def command(
    backend: str | None,
    model: str | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    concurrency: int,
    warm_cache: bool,
    timeout: float,
    seed: int,
    output: Path | None,
    as_json: bool,
    verbose: bool,
) -> None:
    """Measure a backend: TTFT, TPOT, ITL, E2E, prefill and decode rates, each with its formula and its n.

    Raw samples are kept as JSON lines; `-o FILE.jsonl` says where, `-o FILE.json` writes the report.
    """
    if output is not None and output.suffix not in (".json", ".jsonl"):
        raise click.UsageError(f"-o {output.name}: name it .jsonl for the samples or .json for the report")
    use_connection(backend, url=url, api_key=api_key, binary=binary)
    target = find_target(backend)
    name, chosen = find_name(target, model)
    workload = standard(name, concurrency=concurrency, seed=seed, warm_cache=warm_cache)
    samples = output if output is not None and output.suffix == ".jsonl" else sample_path(target.choice.backend.name)
    report = measure(_Job(target, workload, chosen, timeout, samples), quiet=as_json)
    found = to_document(report, samples)
    if output is not None and output.suffix == ".json":
        write_text(output, to_json(found))
    if as_json:
        print_json(found)
    else:
        _show(report, samples, verbose=verbose)


def measure(job: _Job, *, quiet: bool) -> Report:
    """Run the workload under the hook `benchmark`; samples are on disk as they finish.

    Raises:
        VeloError: nothing could be measured, or it was stopped; the text says where the samples are.
    """
    from velollm_core.views.progress import ProgressBar

    run = secrets.token_hex(4)
    with ProgressBar(shown=not quiet) as bar, SampleFile(job.samples, run) as file:
        under = Circumstances(
            status=job.target.choice.status,
            hardware=job.target.hardware,
            listener=Chorus(file, bar),
            limit=job.limit,
        )
        file.begin(job.workload, _environment(job))
        CURRENT.set(under)
        try:
            report = run_interruptibly(_measured(job))
        except KeyboardInterrupt:
            raise VeloError(f"stopped; the finished samples are in {job.samples}") from None
    return evolve(report, plausibility=_plausibility(job, report))


async def _measured(job: _Job) -> Report:
    backend = job.target.choice.backend
    try:
        if job.model is not None and not job.target.choice.status.running and isinstance(backend, Applies):
            await backend.apply(job.model.spec, ())
        return await job.target.plugins.benchmark(backend, job.workload)
    finally:
        await backend.close()


def sample_path(backend: str) -> Path:
    """A new file of samples in the state directory, named by time and backend."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return state_dir() / "samples" / f"{stamp}-{backend}-{secrets.token_hex(2)}.jsonl"


def to_document(report: Report, samples: Path) -> dict[str, object]:
    """The JSON document; samples stay in their file."""
    return document(
        "benchmark",
        backend=report.backend,
        model=report.model,
        workload=report.workload,
        environment=report.environment,
        warm_up=report.warm_up,
        tasks=report.tasks,
        cache=report.cache,
        noise=report.noise,
        plausibility=report.plausibility,
        seconds=report.seconds,
        notes=report.notes,
        formulas={metric.name: {"unit": metric.unit, "formula": metric.formula} for metric in METRICS},
        samples_file=samples,
    )


def _environment(job: _Job) -> Environment:
    from velollm_core.benchmark.environment import describe

    return describe(job.target.choice.backend.name, job.target.choice.status, job.target.hardware)


def _plausibility(job: _Job, report: Report) -> Plausibility:
    rates = [task.metrics["decode_rate"] for task in report.tasks if "decode_rate" in task.metrics]
    decode = max((figures.p50 for figures in rates), default=None)
    if job.model is None:
        return judge_decode(decode, None, "the model's shape is unknown")
    ceiling = decode_ceiling(job.model.spec, job.target.hardware, depth=0)
    return judge_decode(decode, ceiling.rate, ceiling.basis)


def _show(report: Report, samples: Path, *, verbose: bool) -> None:
    from velollm_core.views.measurement import show_report

    screen = console()
    show_report(screen, report, verbose=verbose)
    screen.print(f"Samples: {samples}", markup=False, soft_wrap=True)

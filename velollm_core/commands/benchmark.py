"""`velollm benchmark`: measure a backend, with everything that a reader needs to trust the figures."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import evolve, frozen

from velollm_core.autopilot.against import Match, arms_of, check_restartable, known_settings, play
from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.given import given_settings
from velollm_core.autopilot.model import measurable_model
from velollm_core.autopilot.shape import Shape
from velollm_core.backends.backend import Applies
from velollm_core.benchmark.ceiling import decode_ceiling
from velollm_core.benchmark.circumstances import CURRENT, Circumstances
from velollm_core.benchmark.environment import describe
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
    yes_option,
)
from velollm_core.render import console, document, print_json, to_json, write_text
from velollm_core.report.option import report_option
from velollm_core.target import Target, find_name, find_target

if TYPE_CHECKING:
    from velollm_core.backends.setting import Setting
    from velollm_core.benchmark.plausibility import Plausibility
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.workload import Workload
    from velollm_core.choose import ModelChoice


@frozen
class Asked:
    """The options of one call."""

    backend: str | None
    model: str | None
    url: str | None
    api_key: str | None
    binary: str | None
    concurrency: int
    warm_cache: bool
    settings: str | None
    against: str | None
    budget: float
    prompt_tokens: int
    answer_tokens: int
    timeout: float
    seed: int
    yes: bool
    output: Path | None
    report_file: Path | None
    as_json: bool
    verbose: bool


@frozen
class _Job:
    target: Target
    workload: Workload
    model: ModelChoice | None
    settings: tuple[Setting, ...]
    limit: float
    samples: Path


@click.command(epilog="Example: velollm benchmark --model model.gguf")
@backend_option
@model_option
@connection_options
@click.option("--concurrency", type=click.IntRange(1, 1024), default=1, help="Users who ask at the same time.")
@click.option("--warm-cache", is_flag=True, help="Repeat prompts on purpose: measures the prefix cache instead.")
@click.option(
    "--settings", metavar="SETTINGS", help="Load the model with these: name=value,name=value, or a .json file."
)
@click.option(
    "--against", metavar="SETTINGS", help="Judge these against --settings in restarted pairs; `same` is a control."
)
@click.option("--budget", callback=duration, default="3m", show_default=True, help="Time for --against: 90s, 3m, 1h.")
@click.option(
    "--prompt-tokens", type=click.IntRange(8), default=256, show_default=True, help="Tokens in, for --against."
)
@click.option(
    "--answer-tokens", type=click.IntRange(2), default=48, show_default=True, help="Tokens out, for --against."
)
@click.option("--timeout", type=click.FloatRange(1), default=600.0, help="Seconds after which a request is given up.")
@click.option("--seed", type=int, default=0, help="Orders and varies the prompts.")
@yes_option
@output_option
@report_option
@json_option
@verbose_option
def command(**given: Any) -> None:
    """Measure a backend: TTFT, TPOT, ITL, E2E, prefill and decode rates, each with its formula and its n.

    Raw samples are kept as JSON lines; `-o FILE.jsonl` says where, `-o FILE.json` writes the report.
    """
    asked = Asked(**given)
    if asked.output is not None and asked.output.suffix not in (".json", ".jsonl"):
        raise click.UsageError(f"-o {asked.output.name}: name it .jsonl for the samples or .json for the report")
    use_connection(asked.backend, url=asked.url, api_key=asked.api_key, binary=asked.binary)
    target = find_target(asked.backend)
    if asked.against is None:
        _benchmark(asked, target)
    else:
        _against(asked, target, asked.against)


def _benchmark(asked: Asked, target: Target) -> None:
    name, chosen = find_name(target, asked.model)
    workload = standard(name, concurrency=asked.concurrency, seed=asked.seed, warm_cache=asked.warm_cache)
    samples = _samples(asked, target)
    settings = _settings(asked, target, chosen)
    report = _measure(_Job(target, workload, chosen, settings, asked.timeout, samples), quiet=asked.as_json)
    found = _document(report, samples)
    _write(asked, found)
    if asked.report_file is not None:
        _report(report, samples, asked.report_file)
    if asked.as_json:
        return
    from velollm_core.views.measurement import show_report

    screen = console()
    show_report(screen, report, verbose=asked.verbose)
    screen.print(f"Samples: {samples}", markup=False, soft_wrap=True)


def _report(report: Report, samples: Path, path: Path) -> None:
    from velollm_core.report.files import write_report
    from velollm_core.report.tell import tell_measurement

    write_report(tell_measurement(samples, plausibility=report.plausibility, notes=report.notes), path)


def _settings(asked: Asked, target: Target, model: ModelChoice | None) -> tuple[Setting, ...]:
    if asked.settings is None:
        return ()
    check_restartable(target)
    if model is None:
        raise VeloError("--settings needs a model whose file is known; give it with --model FILE")
    if target.choice.status.running and not asked.yes:
        raise VeloError(f"{target.choice.backend.name} runs already: --settings reloads its model; --yes allows it")
    return given_settings(asked.settings, known_settings(target, model))


def _measure(job: _Job, *, quiet: bool) -> Report:
    from velollm_core.views.progress import ProgressBar

    status, hardware = job.target.choice.status, job.target.hardware
    with ProgressBar(shown=not quiet) as bar, SampleFile(job.samples, secrets.token_hex(4)) as file:
        listener = Chorus(file, bar)
        CURRENT.set(Circumstances(status=status, hardware=hardware, listener=listener, limit=job.limit))
        settings = {setting.name: setting.value for setting in job.settings}
        file.begin(job.workload, describe(job.target.choice.backend.name, status, hardware), settings=settings)
        try:
            report = run_interruptibly(_measured(job))
        except KeyboardInterrupt:
            raise VeloError(f"stopped; the finished samples are in {job.samples}") from None
    return evolve(report, plausibility=_plausibility(job, report))


async def _measured(job: _Job) -> Report:
    backend, running = job.target.choice.backend, job.target.choice.status.running
    loads = job.model is not None and isinstance(backend, Applies) and (job.settings or not running)
    try:
        if loads and job.model is not None and isinstance(backend, Applies):
            await backend.apply(job.model.spec, job.settings)
        report = await job.target.plugins.benchmark(job.target.choice.backend, job.workload)
        if loads and running and isinstance(backend, Applies):
            await backend.roll_back()
        return report
    finally:
        await job.target.choice.backend.close()


def _plausibility(job: _Job, report: Report) -> Plausibility:
    rates = [task.metrics["decode_rate"] for task in report.tasks if "decode_rate" in task.metrics]
    decode = max((figures.p50 for figures in rates), default=None)
    if job.model is None:
        return judge_decode(decode, None, "the model's shape is unknown")
    ceiling = decode_ceiling(job.model.spec, job.target.hardware, depth=0)
    return judge_decode(decode, ceiling.rate, ceiling.basis)


def _document(report: Report, samples: Path) -> dict[str, object]:
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


def _against(asked: Asked, target: Target, against: str) -> None:
    check_restartable(target)
    if target.choice.status.running and not asked.yes:
        raise VeloError(f"{target.choice.backend.name} runs already: --against reloads its model; --yes allows it")
    model = measurable_model(target, asked.model)
    arms = arms_of(target, model, asked.settings, against)
    shape = Shape(asked.prompt_tokens, asked.answer_tokens, asked.concurrency)
    match = Match(target, model, arms, shape, asked.budget, _samples(asked, target))
    from velollm_core.autopilot.report import report_outcome
    from velollm_core.views.autopilot import rule_lines, show_outcome
    from velollm_core.views.progress import BudgetBar

    names = (arms[0].name, arms[1].name)
    screen = console()
    if not asked.as_json:
        screen.print(f"{model.name} on {target.choice.backend.name} ({model.reason})", markup=False, soft_wrap=True)
        for line in rule_lines(shape, asked.budget, names, 0):
            screen.print(f"{line}\n", markup=False, soft_wrap=True)
    with BudgetBar(asked.budget, shown=not asked.as_json) as bar:
        outcome = play(match, bar)
    comparison = outcome.comparison
    found = document(
        "against",
        verdict=comparison.verdict if comparison else None,
        ratio=comparison.ratio if comparison else None,
        interval=comparison.interval if comparison else None,
        minimum_detectable_effect=comparison.minimum_detectable_effect if comparison else None,
        outcome=outcome,
        samples_file=match.samples,
    )
    _write(asked, found)
    if asked.report_file is not None:
        report_outcome(outcome, match.samples, asked.report_file)
    if not asked.as_json:
        show_outcome(screen, outcome, ())
        screen.print(f"Samples: {match.samples}", markup=False, soft_wrap=True)


def _write(asked: Asked, found: dict[str, object]) -> None:
    if asked.output is not None and asked.output.suffix == ".json":
        write_text(asked.output, to_json(found))
    if asked.as_json:
        print_json(found)


def _samples(asked: Asked, target: Target) -> Path:
    if asked.output is not None and asked.output.suffix == ".jsonl":
        return asked.output
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{stamp}-{target.choice.backend.name}-{secrets.token_hex(2)}.jsonl"
    return state_dir() / "samples" / name

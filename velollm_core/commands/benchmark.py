"""`velollm benchmark`: measure a backend, with everything that a reader needs to trust the figures."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from attrs import fields, frozen

from velollm_core.autopilot.against import Match, arms_of, check_restartable, known_settings, play
from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.given import given_settings
from velollm_core.autopilot.model import measurable_model
from velollm_core.autopilot.shape import Shape
from velollm_core.benchmark.lengths import parse_lengths
from velollm_core.benchmark.load import Load
from velollm_core.benchmark.suites import standard
from velollm_core.benchmark.workload import Workload
from velollm_core.config import state_dir
from velollm_core.errors import VeloError
from velollm_core.load_options import asked_load, load_options
from velollm_core.measuring import Job, measure, measured_document
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
    from velollm_core.benchmark.report import Report
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
    prompt_tokens: str
    answer_tokens: str
    timeout: float
    seed: int
    yes: bool
    output: Path | None
    report_file: Path | None
    as_json: bool
    verbose: bool
    load: Load | None = None


_OPTIONS = tuple(attribute.name for attribute in fields(Asked) if attribute.name != "load")


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
@click.option("--prompt-tokens", default="256", show_default=True, help="Tokens in, for --against and loads.")
@click.option(
    "--answer-tokens", default="48", show_default=True, help="Tokens out; also normal:64:8, lognormal:64:0.5 …"
)
@load_options
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
    asked = Asked(load=asked_load(given), **{name: given[name] for name in _OPTIONS})
    if asked.output is not None and asked.output.suffix not in (".json", ".jsonl"):
        raise click.UsageError(f"-o {asked.output.name}: name it .jsonl for the samples or .json for the report")
    if asked.against is not None and asked.load is not None:
        raise click.UsageError("--against measures one kind of request again and again: leave the load's options out")
    use_connection(asked.backend, url=asked.url, api_key=asked.api_key, binary=asked.binary)
    target = find_target(asked.backend)
    if asked.against is None:
        _benchmark(asked, target)
    else:
        _against(asked, target, asked.against)


def _benchmark(asked: Asked, target: Target) -> None:
    name, chosen = find_name(target, asked.model)
    workload = _workload(asked, name)
    samples = _samples(asked, target)
    settings = _settings(asked, target, chosen)
    report = measure(Job(target, workload, chosen, settings, asked.timeout, samples), quiet=asked.as_json)
    found = measured_document(report, samples)
    _write(asked, found)
    if asked.report_file is not None:
        _report(report, samples, asked.report_file)
    if not asked.as_json:
        from velollm_core.views.measurement import show_report

        screen = console()
        show_report(screen, report, verbose=asked.verbose)
        screen.print(f"Samples: {samples}", markup=False, soft_wrap=True)
    if report.stopped:
        raise VeloError(f"stopped; these are the figures of what was finished, and the samples are in {samples}")


def _workload(asked: Asked, model: str) -> Workload:
    if asked.load is None:
        return standard(model, concurrency=asked.concurrency, seed=asked.seed, warm_cache=asked.warm_cache)
    return Workload("load", model, concurrency=asked.concurrency, seed=asked.seed, load=asked.load)


def _report(report: Report, samples: Path, path: Path) -> None:
    from velollm_core.report.files import write_report
    from velollm_core.report.tell import tell_measurement

    write_report(tell_measurement(samples, report), path)


def _settings(asked: Asked, target: Target, model: ModelChoice | None) -> tuple[Setting, ...]:
    if asked.settings is None:
        return ()
    check_restartable(target)
    if model is None:
        raise VeloError("--settings needs a model whose file is known; give it with --model FILE")
    if target.choice.status.running and not asked.yes:
        raise VeloError(f"{target.choice.backend.name} runs already: --settings reloads its model; --yes allows it")
    return given_settings(asked.settings, known_settings(target, model))


def _against(asked: Asked, target: Target, against: str) -> None:
    check_restartable(target)
    if target.choice.status.running and not asked.yes:
        raise VeloError(f"{target.choice.backend.name} runs already: --against reloads its model; --yes allows it")
    model = measurable_model(target, asked.model)
    arms = arms_of(target, model, asked.settings, against)
    shape = _shape(asked)
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


def _shape(asked: Asked) -> Shape:
    lengths = [parse_lengths(asked.prompt_tokens), parse_lengths(asked.answer_tokens)]
    if any(each.shape != "fixed" for each in lengths) or lengths[1].middle < 2:
        raise click.UsageError(
            "--against measures one kind of request: --prompt-tokens and --answer-tokens are numbers"
        )
    return Shape(lengths[0].middle, lengths[1].middle, asked.concurrency)


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

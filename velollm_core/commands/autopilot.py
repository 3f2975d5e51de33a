"""`velollm autopilot`: detect, plan, measure against today's settings, and keep what wins."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.flight import Flight, Landing, fly, journal_for, obstacle, prepare
from velollm_core.autopilot.model import measurable_model
from velollm_core.autopilot.shape import Shape
from velollm_core.autopilot.writing import check_output, write_chosen
from velollm_core.errors import VeloError
from velollm_core.options import (
    backend_option,
    connection_options,
    dry_run_option,
    json_option,
    output_option,
    use_connection,
    yes_option,
)
from velollm_core.render import console, document, format_bytes, print_json, to_json, write_text
from velollm_core.report.option import report_option
from velollm_core.target import find_target

if TYPE_CHECKING:
    from velollm_core.autopilot.journal import Journal
    from velollm_core.choose import ModelCandidate


@click.command(epilog="Example: velollm autopilot model.gguf --dry-run")
@click.argument("model", required=False)
@backend_option
@connection_options
@click.option("--context", type=click.IntRange(1), help="Tokens that one request may use; by default the planner's.")
@click.option("--prompt-tokens", type=click.IntRange(8), help="Tokens in, per request; 256 unless said.")
@click.option("--answer-tokens", type=click.IntRange(2), help="Tokens out, per request; 48, less where that is slow.")
@click.option("--parallel", type=click.IntRange(1, 256), default=1, show_default=True, help="Users asking at a time.")
@click.option("--budget", callback=duration, default="3m", show_default=True, help="Time for measuring: 90s, 3m, 1h.")
@click.option("--fresh", is_flag=True, help="Begin anew instead of going on with a run that was stopped.")
@dry_run_option
@yes_option
@output_option
@report_option
@json_option
def command(
    model: str | None,
    backend: str | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    context: int | None,
    prompt_tokens: int | None,
    answer_tokens: int | None,
    parallel: int,
    budget: float,
    fresh: bool,
    dry_run: bool,
    yes: bool,
    output: Path | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    """Detect, plan, measure the plan against today's settings, and keep what is proven to win.

    MODEL is a file or a name that the backend lists. Without it, one that the backend runs, else one found on disk
    (asked on a terminal), else a test model that VeloLLM makes from a seed.
    """
    use_connection(backend, url=url, api_key=api_key, binary=binary)
    target = find_target(backend)
    check_output(target.choice.backend, output)
    chosen = measurable_model(target, model, None if yes or as_json or not sys.stdin.isatty() else _pick)
    flight = prepare(target, chosen, _shape(prompt_tokens, answer_tokens, parallel), context=context, budget=budget)
    if not as_json:
        _show_plan(flight)
    reason = "a dry run measures nothing" if dry_run else obstacle(flight)
    if reason is not None:
        _end_unmeasured(flight, reason, output, as_json=as_json, dry_run=dry_run)
        _report(None, report_file)
        return
    _allow_restarts(flight, yes=yes)
    journal = journal_for(flight, fresh=fresh)
    landing = _fly(flight, journal, as_json=as_json)
    _end(flight, landing, journal, output, as_json=as_json)
    _report(landing, report_file)


def _shape(prompt: int | None, answer: int | None, users: int) -> Shape:
    wanted = Shape(users=users, elastic=answer is None)
    return Shape(prompt or wanted.prompt_tokens, answer or wanted.answer_tokens, users, wanted.elastic)


def _pick(candidates: Sequence[ModelCandidate]) -> ModelCandidate:
    for number, each in enumerate(candidates, 1):
        size = f"  {format_bytes(each.size)}" if each.size else ""
        click.echo(f"{number:3}  {each.label or each.name}{size}", err=True)
    number = click.prompt("Which model", type=click.IntRange(1, len(candidates)), default=1, err=True)
    return candidates[number - 1]


def _show_plan(flight: Flight) -> None:
    from velollm_core.models.devices import devices
    from velollm_core.views.autopilot import machine_line
    from velollm_core.views.settings import show_optimized

    console().print(machine_line(flight.target.hardware), markup=False, soft_wrap=True)
    show_optimized(flight.found, devices(flight.target.hardware))
    console().print()


def _allow_restarts(flight: Flight, *, yes: bool) -> None:
    choice = flight.target.choice
    if not choice.status.running:
        return
    question = f"{choice.backend.name} runs already: its model is reloaded for every block, and requests may fail"
    if not yes:
        if not sys.stdin.isatty():
            raise VeloError(f"{question}; --yes allows it, --dry-run shows the plan")
        click.confirm(f"{question}. Go on?", abort=True, err=True)
    click.echo(f"{question}.", err=True)
    if hasattr(choice.backend, "may_restart"):
        choice.backend.may_restart = True


def _fly(flight: Flight, journal: Journal, *, as_json: bool) -> Landing:
    from velollm_core.views.autopilot import rule_lines
    from velollm_core.views.progress import BudgetBar

    if not as_json:
        resumed = sum(len(run.blocks) // 2 for run in journal.earlier)
        for line in rule_lines(flight.shape, flight.budget, flight.names, resumed):
            console().print(line, markup=False, soft_wrap=True)
        console().print()
    with BudgetBar(flight.budget, shown=not as_json) as bar:
        return fly(flight, journal, bar)


def _end(flight: Flight, landing: Landing, journal: Journal, output: Path | None, *, as_json: bool) -> None:
    planned = landing.outcome.chosen == flight.names[1]
    written = write_chosen(flight.target.choice.backend, flight.found.plan, output, planned=planned)
    found = _document(flight, landing, written)
    write_text(journal.verdict_path, to_json(found))
    if as_json:
        print_json(found)
        return
    from velollm_core.views.autopilot import choice_lines, show_outcome

    screen = console()
    show_outcome(screen, landing.outcome, landing.foreseen)
    for line in choice_lines(landing.outcome, written, planned=planned):
        screen.print(line, markup=False, soft_wrap=True)
    screen.print(f"Samples: {landing.samples}", markup=False, soft_wrap=True)


def _end_unmeasured(flight: Flight, reason: str, output: Path | None, *, as_json: bool, dry_run: bool) -> None:
    if output is not None and not dry_run:
        written = write_chosen(flight.target.choice.backend, flight.found.plan, output, planned=True)
    else:
        written = None
    if as_json:
        print_json(_document(flight, None, written, reason=reason))
        return
    console().print(f"Not measured: {reason}.", markup=False, soft_wrap=True)
    if written is not None:
        console().print(f"The planned settings, unmeasured, are in {written}.", markup=False, soft_wrap=True)


def _report(landing: Landing | None, path: Path | None) -> None:
    if path is None:
        return
    if landing is None:
        click.echo(f"{path} is not written: nothing was measured.", err=True)
        return
    from velollm_core.autopilot.report import report_outcome

    report_outcome(landing.outcome, landing.samples, path)


def _document(
    flight: Flight, landing: Landing | None, written: Path | None, *, reason: str | None = None
) -> dict[str, object]:
    outcome = landing.outcome if landing else None
    comparison = outcome.comparison if outcome else None
    model = flight.found.model
    return document(
        "autopilot",
        verdict=comparison.verdict if comparison else None,
        ratio=comparison.ratio if comparison else None,
        interval=comparison.interval if comparison else None,
        minimum_detectable_effect=comparison.minimum_detectable_effect if comparison else None,
        chosen=outcome.chosen if outcome else None,
        reason=outcome.reason if outcome else reason,
        backend={"name": flight.target.choice.backend.name, "status": flight.target.choice.status},
        model={"name": model.name, "origin": model.origin, "reason": model.reason},
        hardware=flight.target.hardware,
        plan=flight.found.plan,
        request=flight.shape,
        budget_seconds=flight.budget,
        prediction=landing.foreseen if landing else flight.foreseen,
        outcome=outcome,
        written=written,
        samples_file=landing.samples if landing else None,
    )

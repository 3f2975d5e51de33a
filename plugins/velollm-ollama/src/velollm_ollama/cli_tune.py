"""`velollm ollama tune`: plan one model's settings, apply them, take them back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import frozen

from velollm_core.benchmark.workload import Workload
from velollm_core.errors import BackendError, VeloError
from velollm_core.hardware.machine import Hardware
from velollm_core.options import (
    connection_options,
    dry_run_option,
    hardware_option,
    json_option,
    output_option,
    use_connection,
    yes_option,
)
from velollm_core.render import console, document, print_json, read_document, write_text
from velollm_ollama import application, export, views
from velollm_ollama.facts import Facts
from velollm_ollama.outcome import Outcome, read_outcomes
from velollm_ollama.reach import reach
from velollm_ollama.tuning import optimize

if TYPE_CHECKING:
    from velollm_core.backends.setting import Plan
    from velollm_ollama.backend import OllamaBackend


@frozen
class _Asked:
    model: str
    context: int | None
    parallel: int
    apply: bool
    yes: bool
    hardware: Hardware


@frozen
class _Tuned:
    plan: Plan
    outcomes: tuple[Outcome, ...]
    pending: str | None
    suffix: str
    script: str


@click.command(epilog="Example: velollm ollama tune tiny --context 1024 --dry-run")
@click.argument("model")
@click.option("--context", type=click.IntRange(min=4), metavar="N", help="Tokens that one request may use.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Requests at a time.")
@click.option("--apply", "apply_it", is_flag=True, help="Put the settings in force, and read them back.")
@click.option("--undo", is_flag=True, help="Take back what was applied to the model and to the server's environment.")
@yes_option
@dry_run_option
@connection_options
@hardware_option
@json_option
@output_option
def tune(
    model: str,
    context: int | None,
    parallel: int,
    apply_it: bool,
    undo: bool,
    yes: bool,
    dry_run: bool,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    hardware_file: Path | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Plan the settings of MODEL from its bytes, this machine and what is asked; --apply puts them in force.

    Parameters become a derived model, proved by a request of its own. A variable of the server that needs a restart
    is set only for a systemd service and only with --yes; else the exact commands are said.
    """
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    if undo:
        _undo(model)
        return
    asked = _Asked(model, context, parallel, apply_it and not dry_run, yes, _hardware(hardware_file))
    suffix = output.suffix if output is not None and output.suffix else ".sh"
    tuned = reach(lambda backend: _tune(backend, asked, suffix))
    _say(tuned, as_json=as_json, output=output)
    if tuned.pending:
        raise VeloError(tuned.pending)


async def _tune(backend: OllamaBackend, asked: _Asked, suffix: str) -> _Tuned:
    spec = await backend.resolve(asked.model)
    workload = Workload("tune", asked.model, concurrency=asked.parallel, context=asked.context)
    facts = backend.facts.get(asked.model, Facts())
    plan = optimize(spec, asked.hardware, workload, facts)
    outcomes: tuple[Outcome, ...] = ()
    pending: str | None = None
    if asked.apply:
        backend.may_restart = asked.yes
        try:
            await backend.apply(spec, plan.settings)
        except BackendError as error:
            if error.kind != "needs_restart":
                raise
            pending = str(error)
            await backend.apply(spec, await application.without_restart(backend, plan.settings))
        outcomes = read_outcomes(plan.settings, await backend.read_back())
    return _Tuned(plan, outcomes, pending, suffix, export.emit(plan, suffix, backend.version))


def _undo(model: str) -> None:
    taken = reach(lambda backend: application.roll_back(backend, model=model))
    if not taken:
        click.echo(f"Nothing was applied to {model} on this server.")
        return
    what = [applied.name or ", ".join(applied.environment) for applied in taken]
    click.echo(f"Took back {' and '.join(what)}.")


def _hardware(file: Path | None) -> Hardware:
    if file is not None:
        return read_document(file, "detect", "hardware", Hardware)
    from velollm_core.hardware.probe import detect_hardware

    return detect_hardware()


def _say(tuned: _Tuned, *, as_json: bool, output: Path | None) -> None:
    if output is not None:
        write_text(output, tuned.script)
    if as_json:
        print_json(document("ollama.tune", plan=tuned.plan, outcomes=tuned.outcomes, pending=tuned.pending))
        return
    views.show_plan(console(), tuned.plan)
    if tuned.outcomes:
        views.show_outcomes(console(), tuned.outcomes)
    if output is not None:
        click.echo(f"Wrote {output}.")

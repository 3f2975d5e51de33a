"""`velollm optimize`: the best settings for a backend and model, each with its reason."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from attrs import frozen

from velollm_core.backends.backend import Emits
from velollm_core.errors import VeloError
from velollm_core.observations import recorded
from velollm_core.options import (
    backend_option,
    connection_options,
    dry_run_option,
    hardware_option,
    json_option,
    model_option,
    output_option,
    use_connection,
    yes_option,
)
from velollm_core.planning.machine import machine
from velollm_core.planning.optimized import Optimized, Wanted, optimize
from velollm_core.plugins import Plugins
from velollm_core.render import document, print_json, to_json, write_text
from velollm_core.tuning.options import Measuring, measure_options

if TYPE_CHECKING:
    from velollm_core.applying import Applied
    from velollm_core.hardware.machine import Hardware
    from velollm_core.tuning.outcome import Tuned


@frozen
class _Result:
    found: Optimized
    applied: Applied | None
    output: Path | None
    tuned: Tuned | None = None


@click.command(epilog="Example: velollm optimize --model model.gguf --dry-run")
@backend_option
@model_option
@click.option("--context", type=click.IntRange(min=1), metavar="N", help="Tokens that one request may use.")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Requests at a time.")
@measure_options
@connection_options
@hardware_option
@dry_run_option
@click.option("--apply", "apply_it", is_flag=True, help="Set the settings, and read them back from the engine.")
@yes_option
@output_option
@json_option
def command(
    backend: str | None,
    model: str | None,
    context: int | None,
    parallel: int,
    measuring: Measuring | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    hardware_file: Path | None,
    dry_run: bool,
    apply_it: bool,
    yes: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Plan the best settings for a backend and model, each with where it goes, why, and on what evidence.

    Nothing is changed without --apply, nothing is started without --measure. Without --backend the default of
    config.toml is taken, else one that runs, else one that can be started; without --model one that the backend
    lists, else the smallest GGUF on this machine.
    """
    if (apply_it or measuring) and hardware_file is not None:
        raise click.UsageError("--apply and --measure work on this machine, --hardware plans for another: give one")
    use_connection(backend, url=url, api_key=api_key, binary=binary)
    hardware = machine(hardware_file)
    lessons = () if hardware_file else recorded()
    found = optimize(Plugins.load(), hardware, Wanted(backend, model, context, parallel), lessons)
    found, tuned = (found, None) if dry_run else _measured(found, hardware, measuring, yes=yes, quiet=as_json)
    if output is not None:
        _write(found, output)
    applied = _apply(found, yes=yes) if apply_it and not dry_run and found.plan.settings else None
    _say(_Result(found, applied, output, tuned), hardware, as_json=as_json)
    if applied is not None and not applied.ok:
        raise VeloError(
            f"{applied.backend}: reads back other settings than were set; the ones before are in force again"
        )


def _measured(
    found: Optimized, hardware: Hardware, measuring: Measuring | None, *, yes: bool, quiet: bool
) -> tuple[Optimized, Tuned | None]:
    if measuring is None:
        return found, None
    from velollm_core.tuning.report import measure

    return measure(found, hardware, measuring, yes=yes, quiet=quiet)


def _write(found: Optimized, output: Path) -> None:
    emitter = _emitter(found)
    suffixes = tuple(emitter.suffixes) if emitter else ()
    suffix = output.suffix or next(iter(suffixes), ".json")
    if emitter and suffix in suffixes:
        write_text(output, emitter.emit(found.plan, suffix))
    elif suffix == ".json":
        write_text(output, to_json(_document(_Result(found, None, None))))
    elif suffix == ".sh" and found.choice is None:
        from velollm_core.planning.advice import script

        write_text(output, script(found.model.spec, found.plan))
    else:
        known = ", ".join(dict.fromkeys((*suffixes, ".json")))
        raise click.UsageError(f"-o {output.name}: {found.plan.backend} writes {known}")


def _emitter(found: Optimized) -> Emits | None:
    backend: object = found.choice.backend if found.choice else None
    return backend if isinstance(backend, Emits) else None


def _apply(found: Optimized, *, yes: bool) -> Applied:
    from velollm_core.applying import apply_plan
    from velollm_core.history import remember

    if found.choice is None:
        raise VeloError("no backend can be used here: there is nothing to apply the settings to")
    backend = found.choice.backend
    if found.choice.status.running:
        if not yes:
            _confirm(backend.name)
        if hasattr(backend, "may_restart"):
            backend.may_restart = True
    applied = apply_plan(backend, found.model.spec, found.plan)
    remember(applied)
    return applied


def _confirm(backend: str) -> None:
    question = f"{backend} runs already: applying reloads its model, and requests in flight may fail"
    if not sys.stdin.isatty():
        raise VeloError(f"{question}; --yes allows it")
    click.confirm(f"{question}. Go on?", abort=True, err=True)


def _say(result: _Result, hardware: Hardware, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(result))
        return
    from velollm_core.models.devices import devices
    from velollm_core.views.settings import show_applied, show_optimized

    show_optimized(result.found, devices(hardware))
    if result.applied is not None:
        show_applied(result.applied)
    elif result.output is not None:
        click.echo(f"Wrote {result.output}.")


def _document(result: _Result) -> dict[str, object]:
    choice, model = result.found.choice, result.found.model
    return document(
        "optimize",
        backend={"name": choice.backend.name, "reason": choice.reason, "status": choice.status} if choice else None,
        model={"name": model.name, "origin": model.origin, "reason": model.reason},
        plan=result.found.plan,
        tuned=result.tuned,
        applied=result.applied,
        output=result.output,
    )

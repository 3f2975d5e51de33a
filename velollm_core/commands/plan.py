"""`velollm plan`: what a model takes and reaches here, and what else could be done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from velollm_core.options import hardware_option, json_option, output_option
from velollm_core.planning.options import load_options
from velollm_core.planning.simulation_options import simulation_options

if TYPE_CHECKING:
    from velollm_core.planning.answer import PlanAnswer
    from velollm_core.planning.asked import Asked
    from velollm_core.planning.simulation import SimulatedPlan
    from velollm_core.planning.simulation_asked import SimulationAsked
    from velollm_core.planning.sources import Basis, Sources


@click.command(epilog="Example: velollm plan model.gguf --context 1024")
@click.argument("model")
@load_options
@click.option(
    "--basis",
    type=click.Choice(["both", "formula", "allocator"]),
    default="both",
    show_default=True,
    help="Where bytes come from: our formula, the engine's own allocator, or both against each other.",
)
@click.option("--min-context", type=click.IntRange(min=1), metavar="N", help="Offer nothing below N tokens a request.")
@click.option("--min-decode", type=click.FloatRange(min=0), metavar="X", help="Offer nothing slower, tokens a second.")
@simulation_options
@hardware_option
@json_option
@output_option
def command(
    model: str,
    asked: Asked,
    simulated: SimulationAsked | None,
    basis: Basis,
    min_context: int | None,
    min_decode: float | None,
    hardware_file: Path | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Say what MODEL takes, whether that is free now, how fast it should be, and what else could be done.

    MODEL is a GGUF file (the first of a split one), a Hugging Face directory, hf:org/repo/file.gguf, a URL, or a name
    that a running backend lists. Nothing is loaded and nothing downloaded but headers.
    """
    if output is not None and output.suffix not in ("", ".json", ".sh"):
        raise click.UsageError(f"plan writes .json or .sh, not {output.name}")
    sources, answer = _answer(model, asked, basis, (min_context, min_decode), hardware_file)
    _say(answer, _simulation(sources, answer, simulated) if simulated else None, as_json=as_json, output=output)


def _simulation(sources: Sources, answer: PlanAnswer, simulated: SimulationAsked) -> SimulatedPlan:
    from velollm_core.parts import installed_parts
    from velollm_core.planning.simulation import simulate_plan

    return simulate_plan(sources.spec, sources.devices, answer.pick, simulated, installed_parts())


def _answer(
    model: str, asked: Asked, basis: Basis, floors: tuple[int | None, float | None], hardware_file: Path | None
) -> tuple[Sources, PlanAnswer]:
    from velollm_core.config import load_config
    from velollm_core.models.ranking import Floors
    from velollm_core.observations import recorded
    from velollm_core.planning.answer import make_answer
    from velollm_core.planning.find import find_sources
    from velollm_core.planning.machine import machine

    config = load_config()
    sources = find_sources(model, machine(hardware_file), basis, local=hardware_file is None)
    # What was measured here says nothing about another machine.
    lessons = () if hardware_file else recorded()
    least = Floors(floors[0] or config.min_context, floors[1] or config.min_decode)
    return sources, make_answer(sources, asked, basis=basis, floors=least, lessons=lessons)


def _say(answer: PlanAnswer, simulation: SimulatedPlan | None, *, as_json: bool, output: Path | None) -> None:
    if output is not None:
        _write(answer, simulation, output)
    if as_json:
        from velollm_core.render import print_json

        print_json(_document(answer, simulation))
    elif output is not None:
        click.echo(f"Wrote {output}.")
    else:
        from velollm_core.views.plan import show_plan

        show_plan(answer)
        if simulation is not None:
            from velollm_core.views.simulation import show_simulation

            show_simulation(simulation)


def _document(answer: PlanAnswer, simulation: SimulatedPlan | None) -> dict[str, object]:
    from attrs import fields

    from velollm_core.render import document

    extra = {} if simulation is None else {"simulation": simulation}
    return document("plan", **{field.name: getattr(answer, field.name) for field in fields(type(answer))}, **extra)


def _write(answer: PlanAnswer, simulation: SimulatedPlan | None, output: Path) -> None:
    from velollm_core.errors import VeloError
    from velollm_core.render import to_json, write_text

    if output.suffix != ".sh":
        write_text(output, to_json(_document(answer, simulation)))
    elif answer.pick.command is None:
        raise VeloError(f"{answer.model.source}: llama-server cannot load this as it is; write the plan as .json")
    else:
        write_text(output, f"#!/bin/sh\nexec {answer.pick.command}\n")

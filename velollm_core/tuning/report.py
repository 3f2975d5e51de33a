"""`velollm optimize --measure`: ask, measure, say."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from attrs import evolve

from velollm_core.errors import VeloError
from velollm_core.render import console, document, plain, to_json, write_text
from velollm_core.tuning.logbook import kept_scores
from velollm_core.tuning.tune import logbook_for, prepare, tune
from velollm_core.views.progress import BudgetBar
from velollm_core.views.tuning import rule_lines, show_tuned

if TYPE_CHECKING:
    from velollm_core.hardware.machine import Hardware
    from velollm_core.planning.optimized import Optimized
    from velollm_core.tuning.options import Measuring
    from velollm_core.tuning.outcome import Tuned
    from velollm_core.tuning.search import Tuning

KEPT = "measured against what won the race, and kept: the engine's own settings"


def measure(
    found: Optimized, hardware: Hardware, measuring: Measuring, *, yes: bool, quiet: bool
) -> tuple[Optimized, Tuned]:
    """``found`` with the plan that measuring chose, and how it came to that; with ``quiet`` nothing is printed.

    Where nothing is proven to beat today's settings, the plan is left without any.

    Raises:
        VeloError: nothing can be measured, a running server may not be restarted, or it was stopped.
    """
    tuning = prepare(found, hardware, measuring.shape, measuring.budget)
    _allow_restarts(tuning, yes=yes)
    logbook = logbook_for(tuning, fresh=measuring.fresh)
    if not quiet:
        kept = sum(len(scores) for scores in kept_scores(logbook.race_runs()).values())
        for line in rule_lines(tuning, kept):
            console().print(line, markup=False, soft_wrap=True)
    with BudgetBar(measuring.budget, shown=not quiet) as bar:
        tuned, plan = tune(tuning, hardware, logbook, bar)
    write_text(logbook.outcome_path, to_json(document("tuning", **_fields(tuned))))
    if not quiet:
        show_tuned(console(), tuned)
        console().print()
    if not tuned.changes:
        plan = evolve(plan, settings=(), load=None, memory=None, prediction=None, notes=(*plan.notes, KEPT))
    return evolve(found, plan=plan), tuned


def _fields(tuned: Tuned) -> dict[str, object]:
    fields = plain(tuned)
    return fields if isinstance(fields, dict) else {}


def _allow_restarts(tuning: Tuning, *, yes: bool) -> None:
    if not tuning.status.running:
        return
    question = f"{tuning.backend.name} runs already: its model is reloaded for every block, and requests may fail"
    if not yes:
        if not sys.stdin.isatty():
            raise VeloError(f"{question}; --yes allows it, --dry-run shows the plan")
        click.confirm(f"{question}. Go on?", abort=True, err=True)
    click.echo(f"{question}.", err=True)
    if hasattr(tuning.backend, "may_restart"):
        tuning.backend.may_restart = True

"""From a plan to measured settings: race, final with its look at the answers, choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import asdict, evolve

from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.outcome import conclude
from velollm_core.autopilot.prediction import Foreseen, foresee, lessons_of
from velollm_core.backends.backend import Applies, Varies
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.errors import VeloError
from velollm_core.interruptible import run_interruptibly
from velollm_core.observations import record, recorded
from velollm_core.tuning.candidate import Candidate, measured_plan
from velollm_core.tuning.logbook import Logbook, open_logbook
from velollm_core.tuning.outcome import Tuned
from velollm_core.tuning.pruning import Pruner
from velollm_core.tuning.search import Search, Tuning

if TYPE_CHECKING:
    from velollm_core.autopilot.outcome import Outcome
    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.setting import Plan
    from velollm_core.benchmark.duel import Restartable
    from velollm_core.benchmark.listener import Listener
    from velollm_core.hardware.machine import Hardware
    from velollm_core.planning.optimized import Optimized


def prepare(found: Optimized, hardware: Hardware, shape: Shape, budget: float) -> Tuning:
    """What will be raced.

    Raises:
        VeloError: nothing can be measured here; the text says why.
    """
    choice, plan = found.choice, found.plan
    if choice is None:
        raise VeloError("no backend can be used here: there is nothing to measure; without --measure this is advice")
    if not isinstance(choice.backend, Applies):
        raise VeloError(
            f"{choice.backend.name} cannot be restarted from here: measure with `velollm benchmark -o before.jsonl`, "
            "restart it with the settings, measure again, and let `velollm compare` judge"
        )
    if plan.fits is False:
        raise VeloError("the planned settings do not fit in what is free now; `velollm plan` shows what would")
    if not plan.settings:
        raise VeloError(f"{choice.backend.name}: the plan changes nothing, so there is nothing to measure")
    backend: Restartable = choice.backend
    variations = tuple(backend.variations(plan, hardware)) if isinstance(backend, Varies) else ()
    today = "today" if choice.status.running else "default"
    return Tuning(backend, choice.status, found, variations, shape, budget, today)


def logbook_for(tuning: Tuning, *, fresh: bool = False) -> Logbook:
    """The logbook to go on with, or a new one."""
    return open_logbook(tuning.found, tuning.status, tuning.variations, tuning.shape, fresh=fresh)


def tune(tuning: Tuning, hardware: Hardware, logbook: Logbook, listener: Listener) -> tuple[Tuned, Plan]:
    """Race, compare the winner's answers, measure it anew; the outcome, and the plan with the winner's settings.

    Whatever happens, no server that was started here is left.

    Raises:
        VeloError: it was stopped, or nothing could be measured; finished samples are kept and the next call goes on.
    """
    under = Circumstances(status=tuning.status, hardware=hardware, listener=listener)
    search = Search(tuning, logbook, under, Pruner(tuning.found.model.spec, hardware, tuning.shape))
    try:
        run_interruptibly(search.run())
        winner, experiment = _final(search)
        run_interruptibly(experiment.run())
    except KeyboardInterrupt:
        kept = sum(trial.score is not None for trial in search.trials)
        raise VeloError(f"stopped; {kept} trials are kept, and the same command goes on with them") from None
    final = conclude(experiment.setup, experiment.findings)
    raced = [each.name for variation in tuning.variations for option in variation.options for each in option.settings]
    plan = measured_plan(tuning.found.plan, winner, raced)
    foreseen = _foreseen(tuning, plan, hardware, final)
    tuned = Tuned(
        chosen=final.chosen,
        reason=final.reason,
        today=tuning.today,
        winner=winner.name,
        trials=tuple(search.trials),
        pruned=tuple(search.pruner.pruned),
        unfinished=tuple(search.unfinished),
        quality=final.quality,
        final=final,
        foreseen=foreseen,
        samples=logbook.folder,
    )
    return tuned, plan


def _final(search: Search) -> tuple[Candidate, Experiment]:
    tuning, winner, workload = search.tuning, search.winner, search.workload
    if winner is None or workload is None:
        raise VeloError(f"{tuning.found.plan.backend}: no candidate could be measured; the samples say why")
    arms = (Arm(tuning.today), winner.arm)
    model = tuning.found.model
    budget = tuning.budget - search.spent
    setup = Setup(tuning.backend, tuning.status, model.spec, model.name, arms, tuning.shape, budget)
    journal = search.logbook.final_journal(asdict(workload), (arms[0].name, arms[1].name))
    return winner, Experiment(setup, journal, search.under)


def _foreseen(tuning: Tuning, plan: Plan, hardware: Hardware, final: Outcome) -> tuple[Foreseen, ...]:
    """What the roofline says of the winner beside what was measured, kept for the next prediction."""
    spec, arm = tuning.found.model.spec, final.arms[1]
    figures = {"prefill": arm.prefill, "decode": arm.decode}
    foreseen = tuple(
        evolve(each, measured=figure.p50 if (figure := figures[each.phase]) else None)
        for each in foresee(spec, plan, hardware, tuning.shape, recorded())
    )
    if final.pairs:
        record(lessons_of(foreseen, plan, spec))
    return foreseen

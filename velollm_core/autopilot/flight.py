"""From options to an outcome: choose, plan, measure, conclude, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.journal import Journal, experiment_key, open_journal
from velollm_core.autopilot.outcome import Outcome, conclude
from velollm_core.autopilot.prediction import Foreseen, foresee, lessons_of
from velollm_core.autopilot.shape import Shape
from velollm_core.backends.backend import Applies
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import VeloError
from velollm_core.interruptible import run_interruptibly
from velollm_core.observations import record, recorded
from velollm_core.planning.optimized import Optimized, complete

if TYPE_CHECKING:
    from velollm_core.benchmark.duel import Restartable
    from velollm_core.benchmark.listener import Listener
    from velollm_core.choose import ModelChoice
    from velollm_core.target import Target


@frozen
class Flight:
    """Everything that was chosen before the first measurement."""

    target: Target
    found: Optimized
    shape: Shape
    budget: float
    foreseen: tuple[Foreseen, ...]

    @property
    def names(self) -> tuple[str, str]:
        """What the two configurations are called."""
        return ("today" if self.target.choice.status.running else "default", "planned")


@frozen
class Landing:
    """What came of it. ``foreseen`` carry what was measured; ``samples`` is the file of raw samples."""

    outcome: Outcome
    foreseen: tuple[Foreseen, ...]
    samples: Path
    resumed: int


def prepare(target: Target, model: ModelChoice, shape: Shape, *, context: int | None, budget: float) -> Flight:
    """Let the backend's plugin plan for ``model``, and predict what will be measured.

    Raises:
        VeloError: the plugin plans nothing.
    """
    choice = target.choice
    workload = Workload("autopilot", model.name, concurrency=shape.users, context=context)
    plan = target.plugins.optimize(choice.backend, model.spec, target.hardware, workload)
    if plan is None:
        raise VeloError(
            f"{choice.backend.name}: its plugin plans no settings for {model.name}; `velollm benchmark` works"
        )
    found = Optimized(choice, model, complete(plan, model, target.hardware, choice), target.statuses)
    foreseen = foresee(model.spec, found.plan, target.hardware, shape, recorded())
    return Flight(target, found, shape, budget, foreseen)


def obstacle(flight: Flight) -> str | None:
    """Why nothing can be measured; None where it can."""
    plan, backend = flight.found.plan, flight.target.choice.backend
    if not plan.settings:
        return "the plan changes nothing, so there is nothing to compare"
    if plan.fits is False:
        return "the planned settings do not fit in what is free now; `velollm plan` shows what would"
    if not isinstance(backend, Applies):
        return (
            f"{backend.name} cannot be restarted from here: measure with `velollm benchmark -o before.jsonl`, restart "
            "it with the settings, measure again, and let `velollm compare` judge"
        )
    return None


def journal_for(flight: Flight, *, fresh: bool = False) -> Journal:
    """The journal to go on with, or a new one."""
    choice, model = flight.target.choice, flight.found.model
    key = experiment_key(choice.status, model.spec, _arms(flight), flight.shape, choice.backend.name)
    return open_journal(key, fresh=fresh)


def fly(flight: Flight, journal: Journal, listener: Listener) -> Landing:
    """Measure and conclude; the server that was started is gone afterwards, whatever happens.

    Raises:
        VeloError: it was stopped, or nothing could be measured; finished pairs are kept and the next call goes on.
    """
    choice, model = flight.target.choice, flight.found.model
    backend: Restartable = choice.backend  # type: ignore[assignment]  # `obstacle` has looked
    setup = Setup(backend, choice.status, model.spec, model.name, _arms(flight), flight.shape, flight.budget)
    under = Circumstances(status=choice.status, hardware=flight.target.hardware, listener=listener)
    experiment = Experiment(setup, journal, under)
    try:
        run_interruptibly(experiment.run())
    except KeyboardInterrupt:
        kept = len(experiment.findings.pairs)
        raise VeloError(f"stopped; {kept} pairs are kept, and the same command goes on with them") from None
    outcome = conclude(setup, experiment.findings)
    foreseen = _measured(flight, outcome)
    if outcome.pairs:
        record(lessons_of(foreseen, flight.found.plan, model.spec))
    return Landing(outcome, foreseen, journal.path, experiment.findings.resumed)


def _arms(flight: Flight) -> tuple[Arm, Arm]:
    today, planned = flight.names
    return Arm(today), Arm(planned, flight.found.plan.settings)


def _measured(flight: Flight, outcome: Outcome) -> tuple[Foreseen, ...]:
    planned = outcome.arms[1]
    figures = {"prefill": planned.prefill, "decode": planned.decode}
    return tuple(
        evolve(each, measured=figure.p50 if (figure := figures[each.phase]) else None) for each in flight.foreseen
    )

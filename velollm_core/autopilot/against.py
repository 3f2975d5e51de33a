"""`velollm benchmark --against`: two configurations that were named, judged by pairs of restart blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.autopilot.experiment import Experiment, Setup
from velollm_core.autopilot.given import describe_settings, given_settings, overridden
from velollm_core.autopilot.journal import Journal
from velollm_core.autopilot.outcome import Outcome, conclude
from velollm_core.backends.backend import Applies
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import VeloError
from velollm_core.interruptible import run_interruptibly

if TYPE_CHECKING:
    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.setting import Setting
    from velollm_core.benchmark.duel import Restartable
    from velollm_core.benchmark.listener import Listener
    from velollm_core.choose import ModelChoice
    from velollm_core.target import Target

SAME = "same"


@frozen
class Match:
    """Two arms on one backend and model, what they are asked, for how long, and where the samples go."""

    target: Target
    model: ModelChoice
    arms: tuple[Arm, Arm]
    shape: Shape
    budget: float
    samples: Path


def arms_of(target: Target, model: ModelChoice, settings: str | None, against: str) -> tuple[Arm, Arm]:
    """The configuration ``settings`` (None: the engine's defaults) and the one ``against`` it, which builds on it.

    ``against`` ``same`` is the first once more: a control that must not find a difference.

    Raises:
        VeloError: they cannot be read, or the backend cannot be restarted from here.
    """
    known = known_settings(target, model)
    base = given_settings(settings, known) if settings else ()
    first = Arm(describe_settings(base), base)
    other = base if against == SAME else overridden(base, given_settings(against, known))
    name = describe_settings(other)
    return first, Arm(name if name != first.name else f"{name} again", other)


def known_settings(target: Target, model: ModelChoice) -> tuple[Setting, ...]:
    """The settings that the backend's own plan for ``model`` spells out; empty where it plans nothing."""
    workload = Workload("benchmark", model.name)
    plan = target.plugins.optimize(target.choice.backend, model.spec, target.hardware, workload)
    return plan.settings if plan else ()


def check_restartable(target: Target) -> None:
    """Refuse a backend that VeloLLM cannot restart with settings of its own.

    Raises:
        VeloError: it cannot; the text says what can be done instead.
    """
    if not isinstance(target.choice.backend, Applies):
        raise VeloError(
            f"{target.choice.backend.name} cannot be restarted from here: measure it twice with -o FILE.jsonl and "
            "let `velollm compare` judge"
        )


def play(match: Match, listener: Listener) -> Outcome:
    """Measure both arms; nothing is left running.

    Raises:
        VeloError: it was stopped, one of the arms does not start, or nothing could be measured.
    """
    choice = match.target.choice
    backend: Restartable = choice.backend  # type: ignore[assignment]  # `check_restartable` has looked
    setup = Setup(backend, choice.status, match.model.spec, match.model.name, match.arms, match.shape, match.budget)
    under = Circumstances(status=choice.status, hardware=match.target.hardware, listener=listener)
    experiment = Experiment(setup, Journal(match.samples), under)
    try:
        run_interruptibly(experiment.run())
    except KeyboardInterrupt:
        kept = len(experiment.findings.pairs)
        advice = f"`velollm compare {match.samples}` judges them" if kept else f"samples are in {match.samples}"
        raise VeloError(f"stopped; {kept} pairs are kept: {advice}") from None
    if experiment.findings.refused:
        raise VeloError(f"{experiment.findings.refused}: {experiment.findings.reason}")
    return conclude(setup, experiment.findings)

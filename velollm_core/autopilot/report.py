"""The report of an experiment, with the reasons of the settings that it compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.quality import Guarded
from velollm_core.report.files import write_report
from velollm_core.report.tell import tell_experiment

if TYPE_CHECKING:
    from velollm_core.autopilot.outcome import ArmReport, Outcome


def report_outcome(outcome: Outcome, samples: Path, path: Path) -> None:
    """Write the report of ``outcome``, whose samples are in the file ``samples``, to ``path``.

    Raises:
        VeloError: nothing was measured that could be reported, or the file cannot be written.
    """
    first, second = (_arm(each) for each in outcome.arms)
    comparisons = [evolve(outcome.comparison, notes=_notes(outcome)), *outcome.details] if outcome.comparison else []
    write_report(tell_experiment(samples, comparisons, arms=(first, second), reason=outcome.reason), path)


def _notes(outcome: Outcome) -> tuple[str, ...]:
    notes = outcome.comparison.notes if outcome.comparison else ()
    return (*notes, *Guarded(outcome.quality, outcome.unguarded).notes(outcome.arms[0].name))


def _arm(report: ArmReport) -> Arm:
    return Arm(report.name, report.settings)

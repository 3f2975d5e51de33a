"""A tuning for people: what is raced, every trial, the final's verdict, what follows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from velollm_core.views.autopilot import show_outcome
from velollm_core.views.figures import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from velollm_core.tuning.outcome import Tuned
    from velollm_core.tuning.search import Tuning
    from velollm_core.tuning.trial import Trial


def rule_lines(tuning: Tuning, kept: int) -> Iterator[str]:
    """What will be measured and how it will be judged, said before it begins."""
    shape = tuning.shape
    users = "" if shape.users == 1 else f", {shape.users} users at a time"
    names = ", ".join(f"{each.name} ({len(each.options)})" for each in tuning.variations) or "nothing but the plan"
    yield (
        f"Racing {names} for requests of {shape.prompt_tokens} tokens in and {shape.answer_tokens} out{users}: the "
        "engine is restarted for every block, each round in random order, the slower half and those clearly "
        f"behind leave after it. The winner meets the settings of {tuning.today} on fresh data, in pairs, "
        f"judged once at the end; {seconds(tuning.budget)} in all."
    )
    if kept:
        yield f"{kept} trials of an earlier run that was stopped are taken over."


def show_tuned(screen: Console, tuned: Tuned) -> None:
    """The race, the final and the choice."""
    if tuned.trials:
        screen.print(trials_table(tuned.trials))
    for each in tuned.pruned:
        screen.print(f"Not measured: {each.candidate}: {each.reason}", markup=False, soft_wrap=True)
    for stage in tuned.unfinished:
        screen.print(f"Note: the budget ended the race at {stage}; a longer one goes further.", markup=False)
    screen.print()
    show_outcome(screen, tuned.final, tuned.foreseen)
    for line in choice_lines(tuned):
        screen.print(line, markup=False, soft_wrap=True)


def trials_table(trials: Sequence[Trial]) -> Table:
    """Every candidate of every stage, its time of a request in each round."""
    table = Table("Race", "Candidate", "Time of a request, by round", box=None, pad_edge=False)
    rows: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        cell = seconds(trial.score.seconds) if trial.score else f"out: {trial.reason}"
        rows.setdefault((trial.stage, trial.candidate), []).append(cell)
    before = ""
    for (stage, candidate), cells in rows.items():
        table.add_row("" if stage == before else stage, candidate, "  ".join(cells))
        before = stage
    return table


def choice_lines(tuned: Tuned) -> Iterator[str]:
    """What is kept, and where the samples are."""
    kept = f"Use {tuned.winner}" if tuned.changes else f"Keep the settings of {tuned.today}"
    yield f"{kept}: {tuned.reason}."
    yield f"Samples: {tuned.samples}"

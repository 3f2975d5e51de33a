"""How far a run is, as a terminal shows it."""

from __future__ import annotations

from io import StringIO

import pytest
from attrs import evolve
from rich.console import Console

from velollm_core.benchmark.load import Load
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.suites import standard
from velollm_core.benchmark.timing import RequestTiming
from velollm_core.benchmark.workload import Workload
from velollm_core.views.progress import BudgetBar, ProgressBar

TIMING = RequestTiming(0.0, 0.0, 1.0, (1.0,))
SAMPLE = Sample("short_completion", 0, 50, TIMING)


def terminal(*, is_one: bool = True) -> Console:
    return Console(file=StringIO(), force_terminal=is_one, width=100, legacy_windows=False)


def shown(bar: ProgressBar | BudgetBar) -> str:
    """The bar as it stands now."""
    screen = terminal()
    with screen.capture() as found:
        screen.print(bar._progress.get_renderable())
    return found.get()


def test_tasks_are_one_bar_over_all_their_tokens() -> None:
    suite = standard("m")
    with ProgressBar(suite, screen=terminal()) as bar:
        bar.phase("warm-up", 10)
        bar.sample(evolve(SAMPLE, task="touch"))
        bar.sample(evolve(SAMPLE, warm_up=True))
        assert bar._progress.tasks[0].completed == 1
        bar.phase("short_completion", 5)
        for _ in range(5):
            bar.sample(SAMPLE)
        bar.phase("medium_completion", 3)
        (task,) = bar._progress.tasks
        assert (task.completed, task.total) == (250, 250 + 450 + 600)
        assert "medium completion" in shown(bar)


@pytest.mark.parametrize(("load", "says"), [(Load(seconds=95.0), "1:35 left"), (Load(seconds=0.0), "waiting for")])
def test_a_load_goes_by_the_clock(load: Load, says: str) -> None:
    with ProgressBar(Workload("load", "m", load=load), screen=terminal()) as bar:
        bar.phase("load", 0)
        bar.sample(evolve(SAMPLE, task="load"))
        assert says in shown(bar)
        assert "load, 1 answers" in shown(bar)


def test_a_load_of_so_many_requests_goes_by_them() -> None:
    with ProgressBar(Workload("load", "m", load=Load(requests=4)), screen=terminal()) as bar:
        bar.phase("load", 4)
        bar.sample(SAMPLE)
        assert (bar._progress.tasks[0].completed, bar._progress.tasks[0].total) == (1, 4)


def test_a_budget_goes_by_the_clock() -> None:
    with BudgetBar(200.0, screen=terminal()) as bar:
        bar.phase("planned, block 3", 4)
        bar.sample(SAMPLE)
        assert "3:20 left" in shown(bar)
        assert "planned, block 3" in shown(bar)


def test_nothing_is_drawn_where_nobody_looks() -> None:
    for bar in (ProgressBar(shown=False, screen=terminal()), ProgressBar(screen=terminal(is_one=False))):
        with bar:
            bar.phase("something", 3)
            bar.sample(SAMPLE)
        file = bar._progress.console.file
        assert isinstance(file, StringIO)
        assert file.getvalue() == ""

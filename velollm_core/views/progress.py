"""How far a run is: a bar with the remaining time on a terminal, nothing elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.sample import Sample
from velollm_core.render import console

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload

WARM_UP = "warm-up"


class _Left(ProgressColumn):
    """The time that is left: known where a bar goes by the clock, else by the pace so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = (task.total or 0.0) - (task.elapsed or 0.0) if task.fields.get("by_clock") else task.time_remaining
        if left is None:
            return Text("time left unknown" if task.completed else "")
        seconds = max(0, round(left))
        return Text(f"{seconds // 60}:{seconds % 60:02d} left" if seconds else "waiting for the last answers")


class _Clocked(Progress):
    """Bars whose task is ``by_clock`` move with the time that has passed."""

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.tasks:
            if task.fields.get("by_clock"):
                task.completed = min(task.elapsed or 0.0, task.total or 0.0)
        yield from super().get_renderables()


class _Bar:
    """One bar on stderr, as a context manager; ``shown`` False, or no terminal, keeps it silent."""

    def __init__(self, *, shown: bool, screen: Console | None = None) -> None:
        screen = screen or console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), _Left())
        # Twice a second: who draws in the process that measures takes time from it.
        self._progress = _Clocked(
            *columns,
            console=screen,
            transient=True,
            refresh_per_second=2,
            disable=not (shown and screen.is_terminal),
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class ProgressBar(_Bar):
    """A `Listener` that shows how far the run of ``workload`` is.

    A list of tasks is one bar over all their tokens; a load goes by its requests where they are counted, else by time.
    """

    def __init__(self, workload: Workload | None = None, *, shown: bool = True, screen: Console | None = None) -> None:
        super().__init__(shown=shown, screen=screen)
        self._workload = workload
        self._task: TaskID | None = None
        self._tokens = False
        self._finished = 0

    def phase(self, name: str, total: int) -> None:
        """Begin the bar anew, or go on with that of all tasks."""
        title, work = name.replace("_", " "), self._workload
        if self._tokens and self._task is not None:
            self._progress.update(self._task, description=title)
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._finished = 0
        if name == WARM_UP or work is None or not (work.load or work.tasks):
            self._task = self._progress.add_task(title, total=total or None)
        elif work.load is None:
            self._tokens = True
            tokens = sum(task.max_tokens * task.repeats for task in work.tasks) * work.concurrency
            self._task = self._progress.add_task(title, total=tokens)
        else:
            by_clock = work.load.requests is None
            self._task = self._progress.add_task(
                title, total=work.load.seconds if by_clock else total, by_clock=by_clock
            )

    def sample(self, sample: Sample) -> None:
        """Move the bar on."""
        if self._task is None or sample.task == "touch":
            return
        self._finished += 1
        if self._tokens:
            self._progress.advance(self._task, sample.max_tokens)
        elif self._progress.tasks[0].fields.get("by_clock"):
            self._progress.update(self._task, description=f"{sample.task}, {self._finished} answers")
        else:
            self._progress.advance(self._task)

    def block(self, block: Block) -> None:
        """Blocks move nothing."""


class BudgetBar(_Bar):
    """A `Listener` whose bar is the time spent of a budget of ``seconds``."""

    def __init__(self, seconds: float, *, shown: bool = True, screen: Console | None = None) -> None:
        super().__init__(shown=shown, screen=screen)
        self._task = self._progress.add_task("starting", total=seconds, by_clock=True)

    def phase(self, name: str, total: int) -> None:
        """Say what goes on."""
        self._progress.update(self._task, description=name)

    def sample(self, sample: Sample) -> None:
        """The bar moves by itself."""

    def block(self, block: Block) -> None:
        """The bar moves by itself."""

"""How far a run is: a bar with the remaining time on a terminal, nothing elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.sample import Sample
from velollm_core.render import console


class ProgressBar:
    """A `Listener` that draws on stderr. Use it as a context manager; ``shown`` False keeps it silent."""

    def __init__(self, *, shown: bool = True) -> None:
        screen = console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=screen, transient=True, disable=not (shown and screen.is_terminal))
        self._task: TaskID | None = None

    def phase(self, name: str, total: int) -> None:
        """Begin the bar anew."""
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(name.replace("_", " "), total=total or None)

    def sample(self, sample: Sample) -> None:
        """Move the bar on."""
        if self._task is not None and sample.task != "touch":
            self._progress.advance(self._task)

    def block(self, block: Block) -> None:
        """Blocks move nothing."""

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


class BudgetBar:
    """A `Listener` whose bar is the time spent of a budget of ``seconds``."""

    def __init__(self, seconds: float, *, shown: bool = True) -> None:
        screen = console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("of {task.fields[whole]}"),
        )
        self._progress = Progress(*columns, console=screen, transient=True, disable=not (shown and screen.is_terminal))
        whole = f"{int(seconds // 60)}:{int(seconds % 60):02d}"
        self._task = self._progress.add_task("starting", total=seconds, whole=whole)

    def phase(self, name: str, total: int) -> None:
        """Say what goes on."""
        self._progress.update(self._task, description=name, completed=self._elapsed())

    def sample(self, sample: Sample) -> None:
        """Move the bar on."""
        self._progress.update(self._task, completed=self._elapsed())

    def block(self, block: Block) -> None:
        """Move the bar on."""
        self._progress.update(self._task, completed=self._elapsed())

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def _elapsed(self) -> float:
        return self._progress.tasks[0].elapsed or 0.0

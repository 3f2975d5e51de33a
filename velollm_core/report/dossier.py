"""Everything that a report tells, whatever its format."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.comparison import Comparison
from velollm_core.benchmark.pair import Pair
from velollm_core.benchmark.report import TaskReport
from velollm_core.benchmark.sample import Sample

Standing = Literal["good", "bad", "doubtful"]


@frozen
class Line:
    """One line of every chart: a configuration, a file, or a load; ``samples`` are its requests without warm-up.

    ``steady`` are those of them that figures and charts are made of: under a load, the ones of its steady window.
    """

    name: str
    samples: tuple[Sample, ...]
    tasks: tuple[TaskReport, ...]
    steady: tuple[Sample, ...]


@frozen
class Course:
    """One run from its beginning to its end: its requests and, for each, the number of its `Line`."""

    run: str
    requests: tuple[tuple[Sample, int], ...]
    blocks: tuple[Block, ...]


@frozen
class LoadPoint:
    """One task under one load. ``throughput`` in tokens a second, ``ttft`` and ``e2e`` medians in seconds."""

    curve: str
    task: str
    load: str
    size: float
    throughput: float
    ttft: float
    e2e: float | None


@frozen
class Choice:
    """One setting as the two sides have it."""

    name: str
    first: str
    second: str
    reason: str


@frozen
class Fact:
    """One thing about machine, engine or workload: its value for each side, or one for all."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the sides do not agree."""
        return len(set(self.values)) > 1


@frozen
class Dossier:
    """The verdict first: ``headline`` with its ``standing``, then the sentences behind it.

    ``comparisons`` are named and begin with the one that decides; ``pairs`` stand behind them, where the sides were
    interleaved. ``columns`` head the values of ``facts``. ``files`` are where the samples are.
    """

    title: str
    standing: Standing
    headline: str
    sentences: tuple[str, ...]
    lines: tuple[Line, ...]
    courses: tuple[Course, ...]
    points: tuple[LoadPoint, ...]
    columns: tuple[str, ...]
    facts: tuple[Fact, ...]
    comparisons: tuple[tuple[str, Comparison], ...] = ()
    pairs: tuple[Pair, ...] = ()
    choices: tuple[Choice, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the lines."""
        return tuple(line.name for line in self.lines)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks, in the order they first appear."""
        return tuple(dict.fromkeys(task.name for line in self.lines for task in line.tasks))

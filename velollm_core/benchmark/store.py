"""Files of samples: written line by line while a run goes on, read back for comparison and to resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from attrs import define, field

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.environment import Environment
from velollm_core.benchmark.plausibility import Plausibility
from velollm_core.benchmark.quality import UNGUARDED, Guarded
from velollm_core.benchmark.record import (
    block_line,
    guarded_line,
    parse_block,
    parse_guarded,
    parse_line,
    parse_sample,
    plausibility_line,
    run_line,
    sample_line,
)
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import VeloError


class SampleFile:
    """Appends to a file, each line on disk before the next; as a `Listener` it keeps every sample of a run."""

    def __init__(self, path: Path, run: str) -> None:
        """Open ``path`` for the run called ``run``, its folders made.

        Raises:
            VeloError: the file cannot be written.
        """
        self.path = path
        self.run = run
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _mend(path)
            self._file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            raise VeloError(f"{path}: samples cannot be kept there ({error.strerror or error})") from error

    def begin(self, workload: Workload, environment: Environment, **more: object) -> None:
        """Write the line that says what is measured where."""
        self._write(run_line(self.run, workload, environment, **more))

    def phase(self, name: str, total: int) -> None:
        """Phases are not kept."""

    def sample(self, sample: Sample) -> None:
        """Keep ``sample``."""
        self._write(sample_line(self.run, sample))

    def block(self, block: Block) -> None:
        """Keep ``block``; its samples count as finished from here on."""
        self._write(block_line(self.run, block))

    def quality(self, guarded: Guarded) -> None:
        """Keep how the answers of both arms compare; nothing where they cannot differ."""
        if guarded != UNGUARDED:
            self._write(guarded_line(self.run, guarded))

    def plausibility(self, judged: Plausibility) -> None:
        """Keep whether the run's speeds can be."""
        self._write(plausibility_line(self.run, judged))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")


@define
class RunLog:
    """One run as it was kept. ``head`` is its first line's object; ``impossible`` says why its speeds cannot be.

    ``guarded`` is how the answers of an experiment's arms compare.
    """

    run: str
    head: Mapping[str, Any]
    samples: list[Sample] = field(factory=list)
    blocks: list[Block] = field(factory=list)
    impossible: str | None = None
    guarded: Guarded = UNGUARDED


def read_runs(path: Path) -> list[RunLog]:
    """The runs of a file of samples, in their order. A last line that was cut off while it was written is left out.

    Raises:
        VeloError: the file cannot be read, or a line is not of this schema; the text names the line.
    """
    runs: dict[str, RunLog] = {}
    for number, fields in _objects(path):
        try:
            _add(runs, fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VeloError(f"{path}: line {number} is no sample of velollm ({error!r:.120})") from error
    if not runs:
        raise VeloError(f"{path}: holds no samples; write some with `velollm benchmark -o {path.name}`")
    return list(runs.values())


def _mend(path: Path) -> None:
    # A line that was cut off by a crash would swallow the next one.
    if path.exists() and (data := path.read_bytes()) and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _add(runs: dict[str, RunLog], fields: Mapping[str, Any]) -> None:
    kind, run = fields["kind"], str(fields["run"])
    if kind == "run":
        _check_head(fields)
        runs.setdefault(run, RunLog(run, fields))
    elif run not in runs:
        raise ValueError(f"run {run!r} has no line of its own before it")
    elif kind == "sample":
        runs[run].samples.append(parse_sample(fields))
    elif kind == "block":
        runs[run].blocks.append(parse_block(fields))
    elif kind == "quality":
        runs[run].guarded = parse_guarded(fields)
    elif kind == "plausibility" and fields["verdict"] == "impossible":
        runs[run].impossible = str(fields["text"])


def _check_head(fields: Mapping[str, Any]) -> None:
    workload, arms = fields["workload"], fields.get("arms", {})
    if not isinstance(workload, Mapping) or not isinstance(workload.get("tasks", []), list):
        raise TypeError("its workload is none")
    if not isinstance(workload.get("concurrency", 1), int):
        raise TypeError(f"its concurrency is {workload['concurrency']!r}")
    if not isinstance(fields.get("environment") or {}, Mapping) or not isinstance(arms, Mapping):
        raise TypeError("its environment or its arms are no objects")


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VeloError(f"{path}: cannot be read ({error})") from error
    # Only "\n" ends a line here: a failure's text may hold the other ends that `str.splitlines` knows.
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, parse_line(line)
        except ValueError as error:
            if number == len(lines) > 1 and not text.endswith("\n"):
                return
            raise VeloError(f"{path}: line {number}: {error}; velollm writes such files with -o NAME.jsonl") from error

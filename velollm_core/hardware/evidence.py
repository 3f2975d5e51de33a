"""What probes ask of a machine: so few questions that a file can answer them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from velollm_core.hardware.gpu import Gpu


@frozen
class ToolRun:
    """One run of a tool. ``error`` says why there is no ``exit_code``: not found, timed out, cannot be started."""

    argv: tuple[str, ...]
    exit_code: int | None
    stdout: str = ""
    stderr: str = ""
    error: str | None = None

    @property
    def complaint(self) -> str | None:
        """One line on what went wrong; None for a run that ended well."""
        if self.exit_code == 0:
            return None
        said = " ".join((self.stderr.strip() or self.stdout.strip()).split())[:160]
        reason = self.error or f"exit code {self.exit_code}" + (f" ({said})" if said else "")
        return f"{self.argv[0]}: {reason}"


@frozen
class Found:
    """GPUs that one vendor's probe found, with one note a thing that could not be read."""

    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()


class Evidence(Protocol):
    """A machine that can be asked, live or from a recording. No question raises; the unknown is None or empty."""

    def read(self, path: str) -> str | None:
        """The text of a regular file, cut at 256 KiB; None where it is absent or may not be read."""

    def names(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory; empty where there is none."""

    def link(self, path: str) -> str | None:
        """The last component of a symbolic link's target; None where there is no link."""

    def run(self, *argv: str) -> ToolRun:
        """Run a tool to its end, or until its time is up."""

    def value(self, name: str, compute: Callable[[], object]) -> object:
        """What ``compute`` returns (JSON's own types), under a ``name`` that a recording keeps it by."""

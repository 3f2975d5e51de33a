"""This machine, asked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from attrs import field, frozen

from velollm_core.hardware.evidence import ToolRun
from velollm_core.hardware.tools import run_tool

TEXT_LIMIT = 256 * 2**10
"""Bytes read of one file: a whole `/proc/cpuinfo` of 150 processors."""

TOOL_SECONDS = 5.0
"""A tool's time: nvidia-smi on a cold driver needs about one second a GPU."""


@frozen
class LiveEvidence:
    """Answers from files under ``root`` and from tools, each of which may take ``tool_seconds``."""

    root: Path = field(default=Path("/"))
    tool_seconds: float = TOOL_SECONDS

    def read(self, path: str) -> str | None:
        """The text of a regular file; others (a device, a pipe) could block, and are not opened."""
        try:
            with os.fdopen(os.open(self._place(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    return None
                return file.read(TEXT_LIMIT).decode("utf-8", "replace")
        except (OSError, ValueError):
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """The sorted names in a directory."""
        try:
            return tuple(sorted(entry.name for entry in self._place(path).iterdir()))
        except (OSError, ValueError):
            return ()

    def link(self, path: str) -> str | None:
        """The last component of a symbolic link's target."""
        try:
            return self._place(path).readlink().name or None
        except (OSError, ValueError):
            return None

    def run(self, *argv: str) -> ToolRun:
        """Run a tool with this machine's environment."""
        return run_tool(argv, self.tool_seconds)

    def value(self, name: str, compute: Callable[[], object]) -> object:
        """Compute it; ``name`` matters to recordings only."""
        return compute()

    def _place(self, path: str) -> Path:
        return self.root / path.lstrip("/")

"""Where a server on this machine writes its log, and what is in it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from velollm_core.errors import VeloError

MOST_BYTES: Final = 64 * 2**20
_JOURNAL: Final = ("journalctl", "-u", "ollama", "-b", "-o", "cat", "--no-pager")


def read_log_file(path: str) -> tuple[str, str]:
    """The text of a log and how to call it; ``-`` is standard input. Raises `VeloError` where it cannot be read."""
    if path == "-":
        return sys.stdin.read(), "log on standard input"
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return file.read(MOST_BYTES), path
    except OSError as error:
        raise VeloError(f"{path}: cannot be read ({error.strerror or error})") from error


def find_log() -> tuple[str, str] | None:
    """The log of the server that is installed here, and how to call it; None where there is none to read."""
    for path in _files():
        if path.is_file() and os.access(path, os.R_OK):
            return read_log_file(str(path))
    if platform.system() == "Linux" and shutil.which(_JOURNAL[0]):
        return _journal()
    return None


def _files() -> list[Path]:
    if platform.system() == "Windows":
        return [Path(os.environ.get("LOCALAPPDATA", "")) / "Ollama" / "server.log"]
    return [Path.home() / ".ollama" / "logs" / "server.log"]


def _journal() -> tuple[str, str] | None:
    try:
        done = subprocess.run(_JOURNAL, capture_output=True, text=True, errors="replace", timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout, "journal of ollama.service") if done.returncode == 0 and done.stdout.strip() else None

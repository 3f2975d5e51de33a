"""One server process of our own: started behind a guard, its log read as it comes, never left behind."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from velollm_llamacpp import guard

HEAD_LINES, TAIL_LINES = 4000, 400
STOP_SECONDS = guard.GRACE_SECONDS + 5.0

_PREFIX = re.compile(r"^[\d.]+ (?P<level>[A-Z]) (?:[a-z]+ +)?(?P<text>.*)$")
_PLACE = re.compile(r"^\S+: ")
_ERROR = re.compile(r"^(?:error|Error|terminate called|.*GGML_ASSERT|.*: symbol lookup error)")
_CONSEQUENCE = re.compile(
    r"exiting due to|failed to load model|failed to create.context|llama_model_load_from_file_impl"
)


class ServerProcess:
    """A running server. Its log is kept: the first lines, which say what it loaded, and the last."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start ``command``; a program that cannot be run ends at once, and says so in its log."""
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(guard.__file__)), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(environment),
            # Ctrl-C in the terminal is VeloLLM's to handle: it ends the server in order.
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The guard's process id."""
        return self._process.pid

    @property
    def log(self) -> tuple[str, ...]:
        """The lines so far, without time and level."""
        return tuple(_text(line) for line in (*self._head, *self._tail))

    @property
    def reason(self) -> str:
        """Why it ended, by its own word where it gave one."""
        self._reader.join(1.0)
        return failure((*self._head, *self._tail)) or f"it ended with exit code {self._process.poll()}"

    async def ended_soon(self) -> bool:
        """Whether it has ended, or does within the moment that a crash takes to become visible."""
        for _ in range(40):
            if not self.alive:
                return True
            await asyncio.sleep(0.05)
        return False

    def stop(self) -> None:
        """End it, and wait until it has; ending it again does nothing."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(1.0)
        if self._process.stderr:
            self._process.stderr.close()

    def _read(self) -> None:
        assert self._process.stderr is not None, "it was asked for"
        try:
            for line in self._process.stderr:
                kept = self._head if len(self._head) < HEAD_LINES else self._tail
                kept.append(line.decode(errors="replace").rstrip())
        except ValueError:
            return  # closed under our hands by stop()


def failure(lines: Sequence[str]) -> str | None:
    """The line that says what went wrong first, rather than what that led to."""
    errors = []
    for line in lines:
        match = _PREFIX.match(line)
        if (match and match["level"] == "E") or (not match and _ERROR.match(line)):
            errors.append(_PLACE.sub("", _text(line)).strip()[:300])
    causes = [error for error in errors if not _CONSEQUENCE.search(error)]
    return next(iter(causes or errors), None)


def _text(line: str) -> str:
    match = _PREFIX.match(line)
    return match["text"] if match else line

"""Running a coroutine that may be stopped at any moment: what it opened is closed on the way out."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from attrs import define, field

T = TypeVar("T")

FINISHING = b"\nvelollm: finishing this block; Ctrl-C once more stops at once\n"
STUBBORN = 3
"""The Ctrl-C that no longer waits for the cleaning up."""


def run_interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of ``work``. Ctrl-C, SIGTERM and SIGHUP cancel it, let it clean up, and raise KeyboardInterrupt.

    Within `finishing` the first Ctrl-C waits for the end of what is under way. Only a third one breaks off the cleaning
    up as well.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(work)
    run = _Run()
    with run.listening():
        try:
            return asyncio.run(run.watched(work))
        except asyncio.CancelledError:
            if run.cancelled:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def finishing() -> Iterator[None]:
    """What is within ends before a first Ctrl-C stops the work; nothing happens outside of `run_interruptibly`."""
    run = _RUNS[-1] if _RUNS else None
    if run is None:
        yield
        return
    run.held += 1
    try:
        yield
    finally:
        run.held -= 1
        if run.presses and not run.held:
            run.cancel()


@define(eq=False)
class _Run:
    """One coroutine and the signals that have come for it."""

    held: int = 0
    presses: int = 0
    cancelled: bool = False
    _task: asyncio.Task[Any] | None = field(default=None, init=False)

    async def watched(self, work: Coroutine[Any, Any, T]) -> T:
        self._task = asyncio.current_task()
        try:
            return await work
        finally:
            self._task = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        handlers: dict[str, Callable[[int, FrameType | None], None]] = {
            "SIGINT": self._pressed,
            "SIGTERM": self._told,
            "SIGHUP": self._told,
        }
        before = {
            name: signal.signal(getattr(signal, name), handlers[name]) for name in handlers if name in dir(signal)
        }
        _RUNS.append(self)
        try:
            yield
        finally:
            _RUNS.pop()
            for name, handler in before.items():
                signal.signal(getattr(signal, name), handler)

    def cancel(self) -> None:
        if self._task is None:
            raise KeyboardInterrupt
        if not self.cancelled:
            self.cancelled = True
            self._task.cancel()
            # The loop may be waiting for I/O: a signal alone does not wake it.
            self._task.get_loop().call_soon_threadsafe(lambda: None)

    def _pressed(self, _number: int, _frame: FrameType | None) -> None:
        self.presses += 1
        if self.held and self.presses == 1:
            # Python's own streams cannot be written to within a signal's handler.
            os.write(2, FINISHING)
        elif self.presses >= STUBBORN:
            raise KeyboardInterrupt
        else:
            self.cancel()

    def _told(self, _number: int, _frame: FrameType | None) -> None:
        self.presses += 1
        self.cancel()


_RUNS: list[_Run] = []

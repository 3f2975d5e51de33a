"""Ask a backend something in a thread that can be left behind: a plugin that blocks cannot hang a command."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, TypeVar

from velollm_core.errors import BackendUnreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


def begin(question: Callable[[], Awaitable[T]]) -> Future[T]:
    """Put ``question`` to an event loop of its own, in a daemon thread, and return at once.

    The future holds the answer or the exception; whatever the backend opened must be closed within ``question``.
    """
    answer: Future[T] = Future()

    async def put() -> T:
        return await question()

    def work() -> None:
        try:
            answer.set_result(asyncio.run(put()))
        except BaseException as error:  # noqa: BLE001 - the thread hands everything to whoever waits
            answer.set_exception(error)

    threading.Thread(target=work, name="velollm-ask", daemon=True).start()
    return answer


def wait(answer: Future[T], subject: str, timeout: float) -> T:
    """The answer of `begin`, within ``timeout`` seconds.

    Raises:
        BackendUnreachable: no answer in time; ``subject`` names who was asked for what.
    """
    try:
        return answer.result(timeout)
    except FutureTimeout as error:
        if answer.done():
            raise
        raise BackendUnreachable(f"{subject}: no answer within {timeout:g} s", kind="timeout") from error


def ask(question: Callable[[], Awaitable[T]], subject: str, timeout: float = 10.0) -> T:
    """`begin` and `wait` in one."""
    return wait(begin(question), subject, timeout)

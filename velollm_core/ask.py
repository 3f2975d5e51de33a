"""Ask a backend one thing, within a time: a plugin that blocks cannot hang a command."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from velollm_core.errors import BackendUnreachable
from velollm_core.isolation import Hung, bounded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from velollm_core.backends.backend import Backend

T = TypeVar("T")


def ask(backend: Backend, question: Callable[[], Awaitable[T]], subject: str, timeout: float = 10.0) -> T:
    """The answer to ``question``, put in a thread and event loop of its own; ``backend`` is closed afterwards.

    Raises:
        BackendUnreachable: no answer within ``timeout`` seconds; ``subject`` says what was asked for.
    """

    async def put() -> T:
        try:
            return await question()
        finally:
            await backend.close()

    try:
        return bounded(lambda: asyncio.run(put()), timeout)
    except Hung as error:
        message = f"{backend.name}: {subject}: no answer within {timeout:g} s"
        raise BackendUnreachable(message, kind="timeout") from error

"""One question to the Ollama that the user means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from velollm_core.errors import BackendUnreachable
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.plugin import detect

T = TypeVar("T")


def backend_here() -> OllamaBackend:
    """The backend at the configured address."""
    [backend] = detect()
    assert isinstance(backend, OllamaBackend)
    return backend


def reach(question: Callable[[OllamaBackend], Awaitable[T]]) -> T:
    """The answer to ``question``; raises `BackendUnreachable` with the server's own reason where it does not answer."""

    async def ask() -> T:
        backend = backend_here()
        try:
            status = await backend.status()
            if not status.reachable:
                raise BackendUnreachable(status.reason or f"{backend.url} does not answer")
            return await question(backend)
        finally:
            await backend.close()

    return asyncio.run(ask())

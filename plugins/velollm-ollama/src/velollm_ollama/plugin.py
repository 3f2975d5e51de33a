"""Ollama's hooks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from velollm_core.config import connection
from velollm_core.hookspecs import hookimpl
from velollm_ollama.backend import OllamaBackend
from velollm_ollama.host import parse_host

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend


@hookimpl
def detect() -> list[Backend]:
    """Offer the Ollama at the configured address, else at ``OLLAMA_HOST`` as Ollama's own client reads it."""
    where = connection("ollama")
    address = parse_host(os.environ.get("OLLAMA_HOST", "")).connectable
    return [OllamaBackend(where.url or address.url, where.api_key)]

"""How `velollm llamacpp serve` is told from other servers: by who owns its model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OWNER = "velollm-llamacpp"
SERVED_BY = "velollm llamacpp serve"


def is_ours(entries: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a server that lists ``entries`` is VeloLLM's engine over llama.cpp."""
    return any(entry.get("owned_by") == OWNER for entry in entries)


def loaded_file(entries: Iterable[Mapping[str, Any]]) -> str:
    """The file that such a server has loaded; empty where it does not say."""
    return next((str(entry["root"]) for entry in entries if entry.get("root")), "")

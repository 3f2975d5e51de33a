"""The record of what was applied, as changes that `velollm undo` lists and takes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.backends.change import Change
from velollm_core.errors import BackendError
from velollm_ollama.application import channel_of, take_back
from velollm_ollama.applied import Applied, load_applied

if TYPE_CHECKING:
    from velollm_ollama.backend import OllamaBackend


def changes(url: str) -> tuple[Change, ...]:
    """The changes in force at ``url``: the server's variables first, then models by name."""
    records = load_applied(url)
    return tuple(_change(records[base]) for base in sorted(records))


async def undo(backend: OllamaBackend, change: Change) -> None:
    """Take ``change`` back.

    Raises:
        BackendError: it is not on record (any more), or the server refused.
    """
    applied = load_applied(backend.url).get(change.key)
    if applied is None:
        raise BackendError(f"{backend.client}: {change.what} is not on record any more", kind="not_found")
    await take_back(backend, applied)


def _change(applied: Applied) -> Change:
    if applied.environment:
        pairs = ", ".join(f"{name}={text}" for name, text in applied.environment.items())
        where = f"{applied.path or applied.channel} for {applied.url}"
        return Change(applied.base, f"variables {pairs}", where, restarts=channel_of(applied).restartable)
    again = "; the model that had the name before comes back" if applied.existed else ""
    return Change(applied.base, f"derived model {applied.name} of {applied.base}{again}", applied.url)

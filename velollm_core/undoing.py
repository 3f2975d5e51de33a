"""What can be taken back on this machine, and taking it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.ask import ask
from velollm_core.backends.backend import Backend, Undoes
from velollm_core.backends.change import Change
from velollm_core.errors import VeloError
from velollm_core.history import applied_last, remember_undone

if TYPE_CHECKING:
    from collections.abc import Sequence

# A service may look for its GPUs for as long when it starts again.
UNDO_SECONDS = 150.0


@frozen
class Undoable:
    """A change in force, and the backend whose it is."""

    backend: str
    change: Change


@frozen
class Undone:
    """What came of taking ``change`` back; ``problem`` says why it is still in force, None where it is not."""

    backend: str
    change: Change
    problem: str | None = None


def undoable(backends: Sequence[Backend]) -> tuple[Undoable, ...]:
    """What is recorded and in force, backend by backend.

    Raises:
        VeloError: a record is damaged.
    """
    return tuple(
        Undoable(backend.name, change)
        for backend in backends
        if isinstance(backend, Undoes)
        for change in backend.changes()
    )


def undo(backends: Sequence[Backend], found: Sequence[Undoable]) -> tuple[Undone, ...]:
    """Take every one of ``found`` back; one that fails costs only itself, and stays on record."""
    by_name = {backend.name: backend for backend in backends}
    return tuple(_undo(by_name[each.backend], each.change) for each in found)


def nothing_kept(backends: Sequence[Backend], asked: str | None) -> tuple[str, ...]:
    """Why backends that settings were applied to have nothing to take back, one line each."""
    by_name = {backend.name: backend for backend in backends}
    lines = []
    for name, time in applied_last().items():
        if asked not in (None, name):
            continue
        if name not in by_name:
            lines.append(f"{name}: set at {time}, but its plugin is not here; install it to take that back")
        elif not isinstance(by_name[name], Undoes):
            lines.append(f"{name}: keeps no settings; they ended with the server that was started with them")
    return tuple(lines)


def _undo(backend: Backend, change: Change) -> Undone:
    # `undoable` has found it, so it can.
    undoes: Undoes = backend  # type: ignore[assignment]
    try:
        ask(backend, lambda: undoes.undo(change), f"taking back {change.what}", UNDO_SECONDS)
    except VeloError as error:
        return Undone(backend.name, change, str(error))
    remember_undone(backend.name, change)
    return Undone(backend.name, change)

"""`velollm undo`: take back what was applied."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from velollm_core.errors import VeloError
from velollm_core.options import (
    backend_option,
    connection_options,
    dry_run_option,
    json_option,
    use_connection,
    yes_option,
)
from velollm_core.plugins import Plugins
from velollm_core.render import console, document, print_json
from velollm_core.undoing import Undoable, Undone, nothing_kept, undo, undoable

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend


@click.command(epilog="Example: velollm undo --dry-run")
@backend_option
@connection_options
@dry_run_option
@yes_option
@json_option
def command(
    backend: str | None,
    url: str | None,
    api_key: str | None,
    binary: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Take back what VeloLLM has applied and recorded, on every backend or one: models it derived, variables it set.

    --dry-run lists it. What restarts a server is asked about first; --yes allows it.
    """
    use_connection(backend, url=url, api_key=api_key, binary=binary)
    backends = _backends(backend)
    found, notes = undoable(backends), nothing_kept(backends, backend)
    done: tuple[Undone, ...] = ()
    if found and not dry_run:
        _allow(found, yes=yes)
        done = undo(backends, found)
    if as_json:
        print_json(document("undo", changes=found, undone=done, dry_run=dry_run, notes=notes))
    else:
        _show(found, done, notes)
    if failed := [each for each in done if each.problem]:
        raise VeloError(f"{len(failed)} of {len(done)} changes are still in force: {failed[0].problem}")


def _backends(asked: str | None) -> list[Backend]:
    from velollm_core.hardware.probe import detect_hardware

    backends = Plugins.load().detect(detect_hardware(probe_bandwidth=False))
    if asked is None:
        return backends
    known = ", ".join(each.name for each in backends) or "none"
    if asked not in {each.name for each in backends}:
        raise VeloError(f"no plugin offers a backend called {asked!r}; here are: {known}")
    return [each for each in backends if each.name == asked]


def _allow(found: Sequence[Undoable], *, yes: bool) -> None:
    restarting = sorted({each.backend for each in found if each.change.restarts})
    if not restarting:
        return
    question = f"{', '.join(restarting)} is restarted for it, and requests in flight may fail"
    if not yes:
        if not sys.stdin.isatty():
            raise VeloError(f"{question}; --yes allows it, --dry-run lists what would be taken back")
        click.confirm(f"{question}. Go on?", abort=True, err=True)
    click.echo(f"{question}.", err=True)


def _show(found: Sequence[Undoable], done: Sequence[Undone], notes: Sequence[str]) -> None:
    screen = console()
    states = {(each.backend, each.change): "Still in force" if each.problem else "Took back" for each in done}
    for each in found:
        state = states.get((each.backend, each.change), "Would take back")
        line = f"{state}: {each.backend}: {each.change.what} ({each.change.where})"
        screen.print(line, markup=False, soft_wrap=True)
    if not found:
        screen.print("Nothing that VeloLLM applied is in force here.")
    for note in notes:
        screen.print(note, markup=False, soft_wrap=True)

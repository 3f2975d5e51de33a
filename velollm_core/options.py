"""The one grammar of options: every command takes the same words for the same things."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from velollm_core.config import ConnectionField, variable

Command = TypeVar("Command", bound=Callable[..., object])

json_option = click.option("--json", "as_json", is_flag=True, help="Write one JSON document to stdout.")
output_option = click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the result to FILE; its suffix decides the format.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
yes_option = click.option("--yes", is_flag=True, help="Answer every question with yes.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Say more.")
backend_option = click.option("--backend", metavar="NAME", help="The backend to use; `velollm detect` lists them.")
model_option = click.option("--model", metavar="NAME_OR_FILE", help="A model the backend lists, or a file.")
hardware_option = click.option(
    "--hardware",
    "hardware_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Plan for the machine in FILE, as `velollm detect --json` wrote it.",
)


def connection_options(command: Command) -> Command:
    """``--url``, ``--api-key`` and ``--binary``: where the backend is, for this call only."""
    for option in (
        click.option("--binary", metavar="PATH", help="The backend's program, to start it with."),
        click.option("--api-key", metavar="KEY", help="The key the backend asks for."),
        click.option("--url", metavar="URL", help="Where the backend answers."),
    ):
        command = option(command)
    return command


def use_connection(backend: str | None, *, url: str | None, api_key: str | None, binary: str | None) -> None:
    """Let ``backend`` (and every process started for it) see the address given on the command line.

    Raises:
        click.UsageError: an address was given without the backend it belongs to.
    """
    given: dict[ConnectionField, str | None] = {"url": url, "api_key": api_key, "binary": binary}
    for field, value in given.items():
        if value is None:
            continue
        if backend is None:
            raise click.UsageError(f"--{field.replace('_', '-')} needs --backend NAME: whose is it?")
        os.environ[variable(backend, field)] = value

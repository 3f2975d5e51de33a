"""The `velollm` command: names and help from metadata, errors to exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

import click

from velollm_core import __version__

COMMANDS = {
    "autopilot": "Detect, plan, measure against today's settings, and keep what wins.",
    "benchmark": "Measure a backend: TTFT, TPOT, ITL, prefill and decode rates.",
    "compare": "Judge two measurements: faster, slower, equivalent, or not enough evidence.",
    "detect": "See the machine: processor, memory and its limits, GPUs, backends.",
    "optimize": "Plan the best settings for a backend and model, each with its reason.",
    "plan": "What a model takes and reaches here, to the byte, and its alternatives.",
    "plugins": "List plugins: what they offer, and why one failed.",
    "undo": "Take back what was applied: derived models, variables of a server.",
}


class Commands(click.Group):
    """Core commands and those of installed plugins, none imported before it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*COMMANDS, *(entry_point.name for entry_point in _entry_points())})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            return _object(f"velollm_core.commands.{cmd_name}")
        entry_point = next((each for each in _entry_points() if each.name == cmd_name), None)
        return _plugin_command(entry_point) if entry_point else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        helps = {**{entry_point.name: _summary(entry_point) for entry_point in _entry_points()}, **COMMANDS}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(helps.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = super(click.Group, self).shell_complete(ctx, incomplete)
        return [*(click.shell_completion.CompletionItem(name) for name in names), *options]


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="velollm")
@click.option(
    "--block-plugin", "blocked", multiple=True, metavar="NAME", help="Leave this plugin out; may be repeated."
)
def velollm(blocked: tuple[str, ...]) -> None:
    """The autopilot for language models on your own hardware."""
    if blocked:
        os.environ["VELOLLM_BLOCK_PLUGINS"] = ",".join([os.environ.get("VELOLLM_BLOCK_PLUGINS", ""), *blocked])


def main() -> None:
    """Run the command; a `VeloError` is one line on stderr and exit code 1."""
    from velollm_core.errors import VeloError

    try:
        velollm()
    except VeloError as error:
        if os.environ.get("VELOLLM_RAISE"):
            raise
        click.echo(f"velollm: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of a pipe has gone: not our failure, but nothing more can be said there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _entry_points() -> Iterator[EntryPoint]:
    blocked = os.environ.get("VELOLLM_BLOCK_PLUGINS", "").split(",")
    only = [name for name in os.environ.get("VELOLLM_ONLY_PLUGINS", "").split(",") if name]
    found = entry_points(group="velollm.commands")
    return (each for each in found if each.name not in blocked and (not only or each.name in only))


def _summary(entry_point: EntryPoint) -> str:
    summary = entry_point.dist.metadata["Summary"] if entry_point.dist else None
    return summary or "A plugin's command."


def _plugin_command(entry_point: EntryPoint) -> click.Command:
    distribution = entry_point.dist
    origin = f"{distribution.name} {distribution.version}" if distribution else "an unknown distribution"
    try:
        command = entry_point.load()
    except Exception as error:
        if os.environ.get("VELOLLM_RAISE"):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise click.ClickException(f"command '{entry_point.name}' of {origin} cannot be loaded: {reason}") from error
    if not isinstance(command, click.Command):
        raise click.ClickException(f"command '{entry_point.name}' of {origin} is no click command: {command!r:.80}")
    return command


def _object(module: str) -> click.Command:
    command = import_module(module).command
    assert isinstance(command, click.Command)
    return command


if __name__ == "__main__":
    main()

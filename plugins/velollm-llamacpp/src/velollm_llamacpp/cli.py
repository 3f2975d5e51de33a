"""`velollm llamacpp`: what only makes sense with llama.cpp."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from velollm_core.options import json_option
from velollm_llamacpp.engine.commands import generate_command, serve_command

if TYPE_CHECKING:
    from velollm_core.testing.test_model import Size


@click.group()
def command() -> None:
    """llama.cpp under VeloLLM's own scheduler, and test models made from a seed."""


command.add_command(generate_command)
command.add_command(serve_command)


@command.command("make-test-model", epilog="Example: velollm llamacpp make-test-model -o small.gguf")
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file to write.")
@click.option(
    "--size",
    type=click.Choice(["small", "medium"]),
    default="small",
    show_default=True,
    help="6.3 MiB in F16, or 204 MiB in Q8_0.",
)
@click.option("--draft", is_flag=True, help="Its first layer alone, for speculative decoding.")
@json_option
def make_test_model(directory: Path | None, output: Path | None, size: str, draft: bool, as_json: bool) -> None:
    """Make a model that knows nothing but runs like any other: a llama out of a seed, the same bytes everywhere.

    It is written to FILE, or into DIRECTORY (default: here) under a name of its own.
    """
    if directory is not None and output is not None:
        raise click.UsageError("give DIRECTORY or -o FILE, not both")
    from velollm_core.errors import VeloError
    from velollm_core.render import document, format_bytes, print_json
    from velollm_core.testing.test_model import write_test_model

    name = f"velollm-test-{size}{'-draft' if draft else ''}.gguf"
    path = output or (directory or Path()) / name
    try:
        write_test_model(path, cast("Size", size), draft=draft)
    except ImportError as error:
        raise VeloError(f"making a model needs {error.name}; `pip install velollm[llamacpp]` brings it") from error
    except OSError as error:
        raise VeloError(f"{path}: cannot be written: {error.strerror}") from error
    count = path.stat().st_size
    if as_json:
        print_json(document("llamacpp.make-test-model", path=str(path), bytes=count, size=size, draft=draft))
    else:
        click.echo(f"Wrote {path}: {format_bytes(count)}.")

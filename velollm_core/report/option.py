"""`--report FILE`, the same for every command that measures."""

from __future__ import annotations

from pathlib import Path

import click

SUFFIXES = (".html", ".md", ".txt", ".json")


def _checked(_context: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    # Said before anything is measured, not after.
    if value is not None and value.suffix.lower() not in SUFFIXES:
        raise click.BadParameter(f"{value.name}: name it .html, .md, .txt (for benchstat) or .json")
    return value


report_option = click.option(
    "--report",
    "report_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_checked,
    help="Write a report: .html (one page, offline), .md, .txt (for benchstat) or .json.",
)

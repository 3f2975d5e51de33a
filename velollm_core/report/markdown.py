"""The report as Markdown, to be pasted into an issue or a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from velollm_core.report.dossier import Dossier
from velollm_core.report.markup import clean
from velollm_core.report.tables import (
    Table,
    choices_table,
    comparisons_table,
    facts_table,
    figures_table,
    noise_table,
    requests_table,
)


def to_markdown(dossier: Dossier) -> str:
    """Verdict and figures open, environment and noise folded."""
    return "\n".join(_lines(dossier)) + "\n"


def plain_text(text: str) -> str:
    """``text`` on one line, with everything that Markdown or HTML would take for its own made harmless."""
    one = " ".join(clean(text).split())
    return re.sub(r"([\\`*_\[\]|~#@])", r"\\\1", html.escape(one, quote=False))


def table_lines(table: Table) -> Iterator[str]:
    """A table of the common dialect."""
    yield _row(table.columns)
    yield "|" + "|".join("--:" if place in table.numbers else ":--" for place in range(len(table.columns))) + "|"
    yield from (_row(row) for row in table.rows)


def _lines(dossier: Dossier) -> Iterator[str]:
    yield f"## {plain_text(dossier.title)}"
    yield ""
    yield f"**{plain_text(dossier.headline)}**"
    yield ""
    yield from (f"- {plain_text(sentence)}" for sentence in dossier.sentences)
    for table in (comparisons_table(dossier), choices_table(dossier)):
        if table is not None:
            yield from _titled(table)
    for task in dossier.tasks:
        yield from _titled(figures_table(dossier, task))
    yield ""
    yield "<details><summary>Requests, environment and noise</summary>"
    for table in (requests_table(dossier), facts_table(dossier), noise_table(dossier)):
        if table is not None:
            yield from _titled(table)
    yield ""
    yield "</details>"


def _titled(table: Table) -> Iterator[str]:
    yield ""
    yield f"### {plain_text(table.caption)}"
    yield ""
    yield from table_lines(table)


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(plain_text(cell) for cell in cells)} |"

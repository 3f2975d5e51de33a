"""A report in the format that its file's name asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from velollm_core.errors import VeloError
from velollm_core.render import document, to_json, write_text
from velollm_core.report.benchstat import to_benchstat
from velollm_core.report.dossier import Dossier
from velollm_core.report.markdown import to_markdown
from velollm_core.report.markup import clean
from velollm_core.report.page import to_html


def to_document(dossier: Dossier) -> dict[str, object]:
    """The report as a JSON document; the samples stay in their files."""
    return document(
        "report",
        title=dossier.title,
        standing=dossier.standing,
        headline=dossier.headline,
        sentences=dossier.sentences,
        comparisons=[{"name": name, "comparison": each} for name, each in dossier.comparisons],
        pairs=dossier.pairs,
        settings=dossier.choices,
        sides=[{"name": line.name, "tasks": line.tasks} for line in dossier.lines],
        load_points=dossier.points,
        environment={fact.name: list(fact.values) for fact in dossier.facts},
        blocks=[{"run": course.run, "blocks": course.blocks} for course in dossier.courses],
        samples_files=dossier.files,
    )


def _json(dossier: Dossier) -> str:
    return to_json(to_document(dossier))


FORMATS: dict[str, Callable[[Dossier], str]] = {
    ".html": to_html,
    ".md": to_markdown,
    ".txt": to_benchstat,
    ".json": _json,
}


def write_report(dossier: Dossier, path: Path) -> None:
    """Write ``path``: .html a page, .md Markdown, .txt benchstat's lines, .json a document.

    Raises:
        VeloError: another suffix, or the file cannot be written.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise VeloError(
            f"{path}: a report is one of {', '.join(FORMATS)}, not {path.suffix or 'a file without suffix'}"
        )
    write_text(path, clean(form(dossier)))

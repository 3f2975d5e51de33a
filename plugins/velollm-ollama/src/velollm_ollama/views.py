"""Tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from velollm_core.render import format_bytes
from velollm_ollama.settings import as_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from velollm_core.backends.setting import Plan
    from velollm_ollama.evidence import Effective, EffectiveSetting, Evidence
    from velollm_ollama.finding import Finding
    from velollm_ollama.listing import ListedModel
    from velollm_ollama.outcome import Outcome


def show_effective(console: Console, evidence: Evidence, found: Effective) -> None:
    """Settings of the server, then of each loaded model, then what is wrong."""
    console.print(f"Ollama {evidence.version or 'of an unknown version'}", markup=False)
    names = dict.fromkeys(entry.model for entry in found.settings)
    for model in names:
        entries = [entry for entry in found.settings if entry.model == model]
        _print(console, f"Loaded: {model}" if model else "Server", ("Setting", "Value", "Read from", "Note"),
               (_effective_row(entry) for entry in entries))  # fmt: skip
    show_findings(console, found.findings)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def show_findings(console: Console, findings: Sequence[Finding]) -> None:
    """One line a finding, or that there is none."""
    for finding in findings:
        console.print(str(finding), markup=False, soft_wrap=True)
    if not findings:
        console.print("No setting is misread, ignored or broken.")


def show_models(console: Console, models: Sequence[ListedModel]) -> None:
    """One row a model; problems below."""
    _print(console, "Models", ("Name", "Size", "Loaded", "Context", "Parameters of its own"), map(_model_row, models))
    for model in models:
        if model.problem:
            console.print(f"error: {model.name}: {model.problem}", markup=False, soft_wrap=True)
    if not models:
        console.print("The server has no models: `ollama pull NAME` gets one.")


def show_plan(console: Console, plan: Plan) -> None:
    """Settings with where they go and why, then notes."""
    where = {"env": "server environment", "model": "derived model", "request": "each request"}
    rows = ((each.name, as_text(each.value), where.get(each.where, each.where), each.reason) for each in plan.settings)
    _print(console, f"Plan for {plan.model}", ("Setting", "Value", "Where", "Why"), rows)
    if plan.memory is not None:
        parts = ", ".join(f"{device.device} {format_bytes(device.total)}" for device in plan.memory.devices)
        console.print(f"Memory: {parts}", markup=False, soft_wrap=True)
    for note in plan.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def show_outcomes(console: Console, outcomes: Iterable[Outcome]) -> None:
    """What was asked for beside what was read back."""
    rows = ((each.name, as_text(each.asked), as_text(each.found), each.state) for each in outcomes)
    _print(console, "Read back", ("Setting", "Asked", "Found", "State"), rows)


def _effective_row(entry: EffectiveSetting) -> tuple[str, ...]:
    value = format_bytes(int(entry.value)) if entry.name == "size" else entry.value
    return entry.name, value or "unset", entry.source, entry.note or ""


def _model_row(model: ListedModel) -> tuple[str, ...]:
    loaded = model.loaded
    share = f"{loaded.size_vram / loaded.size:.0%} on GPU" if loaded is not None and loaded.size else ""
    context = str(loaded.context) if loaded is not None and loaded.context else f"up to {model.context_length or '?'}"
    own = ", ".join(f"{name}={as_text(value)}" for name, value in model.parameters.items() if name != "stop")
    return model.name, format_bytes(model.size), share or "no", context, own


def _print(console: Console, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    console.print(_table(title, columns, rows))


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return table

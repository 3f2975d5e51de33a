"""A plan for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.render import console, format_bytes, format_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from velollm_core.figures import Bytes, Rate
    from velollm_core.models.alternatives import Alternatives
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.fit import Fit
    from velollm_core.models.pick import Pick
    from velollm_core.planning.answer import ModelSummary, PlanAnswer

_VERDICTS = {
    "yes": "[green]fits[/green]",
    "maybe": "[yellow]may fit[/yellow]",
    "no": "[red]does not fit[/red]",
    "unknown": "[yellow]unknown[/yellow]",
}


def show_plan(answer: PlanAnswer) -> None:
    """Print ``answer`` to stdout."""
    screen = console()
    _lines(screen, [_model(answer.model), _context(answer.pick)])
    screen.print()
    screen.print(memory_table(answer.pick.memory, answer.pick.fit))
    _lines(screen, [device.reason for device in answer.pick.fit.devices])
    _lines(screen, ["", *_speed(answer), *answer.speed_basis], style="dim")
    screen.print()
    _alternatives(screen, answer.alternatives)
    _lines(screen, ["", f"Placement: {answer.placement}"])
    if answer.pick.command:
        _lines(screen, [f"Start: {answer.pick.command}"])
    _lines(screen, [f"Note: {note}" for note in answer.notes])


def memory_table(memory: MemoryBreakdown, fit: Fit) -> Table:
    """Components by device, each figure with its source; then the sum against what is free."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("Memory")
    for device in memory.devices:
        table.add_column(device.device, justify="right")
        table.add_column("source", style="dim")
    for name in memory.devices[0].components:
        figures = [device.components[name] for device in memory.devices]
        if any(figure.high for figure in figures):
            table.add_row(_TITLES[name], *(cell for figure in figures for cell in (_figure(figure), _source(figure))))
    spans = [_between(device.low, device.high) for device in memory.devices]
    table.add_row("[bold]total[/bold]", *(cell for span in spans for cell in (span, "")))
    table.add_row("free now", *(cell for device in fit.devices for cell in (format_bytes(device.free), "")))
    table.add_row("", *(cell for device in fit.devices for cell in (_VERDICTS[device.verdict], "")))
    return table


_TITLES = {
    "weights": "weights",
    "kv": "KV cache",
    "recurrent": "recurrent state",
    "compute": "compute",
    "output": "output",
    "overhead": "overhead",
}


def _alternatives(screen: Console, found: Alternatives) -> None:
    if found.picks:
        screen.print(_picks(found.picks))
        _lines(screen, [f"{number}  {pick.trade}" for number, pick in enumerate(found.picks, 1)])
    elif found.closest is not None:
        lines = [f"Nothing fits; the closest is {found.closest.trade}.", found.why or ""]
        if found.missing:
            lines.append(f"Missing: {format_bytes(found.missing)} ({found.missing} bytes) for a sure fit.")
        _lines(screen, lines)
    _lines(screen, [f"Hint: {hint}" for hint in found.hints])


def _picks(picks: Sequence[Pick]) -> Table:
    from rich.table import Table

    table = Table("", "tokens", "slots", "KV", "on GPU", "memory", "prefill/s", "decode/s", "full", "turn", box=None)
    for number, pick in enumerate(picks, 1):
        kinds = pick.load.type_k if pick.load.type_k == pick.load.type_v else f"{pick.load.type_k}/{pick.load.type_v}"
        placed = f"{pick.load.gpu_layers}" + (f"-{pick.load.cpu_moe_layers}e" if pick.load.cpu_moe_layers else "")
        table.add_row(
            str(number),
            str(pick.context),
            str(pick.slots),
            kinds,
            placed,
            format_bytes(pick.memory.total),
            _central(pick.start.prefill),
            _central(pick.start.decode),
            _central(pick.full.decode),
            f"{pick.turn_seconds.value:.1f} s" if pick.turn_seconds else "unknown",
        )
    return table


def _model(model: ModelSummary) -> str:
    parameters = f"{model.parameters / 1e9:.2f} billion parameters, " if model.parameters else ""
    weights = f"{parameters}{format_bytes(model.bytes)} of weights, {model.layers} layers"
    kind = f"{model.architecture}, {model.quantization}"
    return f"{model.name} ({kind}): {weights}, trained for {model.context_length} tokens"


def _context(pick: Pick) -> str:
    memory, load = pick.memory, pick.load
    slots = f"{memory.sequences} requests at a time" if memory.sequences > 1 else "one request at a time"
    cache = f"{memory.context} in the cache; K in {load.type_k}, V in {load.type_v}"
    batches = f"flash attention {load.flash_attn}, batch {memory.batch}, ubatch {memory.ubatch}"
    return f"{pick.context} tokens a request, {slots}, {cache}, {batches}"


def _speed(answer: PlanAnswer) -> Iterator[str]:
    pick = answer.pick
    yield f"Prefill of {pick.start.depth} tokens: {format_rate(pick.start.prefill)}"
    yield f"Decode at {pick.start.depth} tokens: {format_rate(pick.start.decode)}"
    yield f"Decode at {pick.full.depth} tokens: {format_rate(pick.full.decode)}"
    if pick.turn_seconds is not None:
        turn = f"A turn ({answer.turn.prompt} tokens in, {answer.turn.answer} out)"
        yield f"{turn}: {format_rate(pick.turn_seconds, 's')}"


def _figure(figure: Bytes) -> str:
    return _between(figure.low, figure.high) if figure.interval else format_bytes(figure.value)


def _source(figure: Bytes) -> str:
    return figure.basis if figure.high else ""


def _between(low: int, high: int) -> str:
    least, most = format_bytes(low), format_bytes(high)
    if least == most:
        return most
    return f"{least}–{most}" if least.split()[1] != most.split()[1] else f"{least.split()[0]}–{most}"


def _central(rate: Rate | None) -> str:
    return f"{rate.value:.1f}" if rate else "unknown"


def _lines(screen: Console, lines: Sequence[str], style: str | None = None) -> None:
    for line in lines:
        screen.print(line, style=style, markup=False, soft_wrap=True)

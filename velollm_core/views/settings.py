"""A backend's planned settings for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.models.fit import fit
from velollm_core.render import console, format_rate
from velollm_core.views.plan import memory_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from velollm_core.applying import Applied
    from velollm_core.backends.setting import Plan, Setting, Value
    from velollm_core.models.devices import Device
    from velollm_core.planning.optimized import Optimized

_FITS = {True: "It fits in what is free now.", False: "It does not fit in what is free now.", None: None}


def show_optimized(found: Optimized, devices: Sequence[Device]) -> None:
    """Print what was chosen, the settings with their reasons, memory and prediction."""
    screen = console()
    if found.choice is None:
        screen.print("Backend: none can be used here", markup=False)
        for name, status in found.statuses.items():
            screen.print(f"  {name}: {status.reason or 'does not answer'}", markup=False, soft_wrap=True)
    else:
        choice = found.choice
        version = f" {choice.status.version}" if choice.status.version else ""
        screen.print(f"Backend: {choice.backend.name}{version} ({choice.reason})", markup=False, soft_wrap=True)
    screen.print(f"Model: {found.model.name} ({found.model.reason})\n", markup=False, soft_wrap=True)
    screen.print(_settings(found.plan.settings))
    for line in _verdict(found.plan):
        screen.print(line, markup=False, soft_wrap=True)
    if found.plan.memory is not None:
        screen.print()
        screen.print(memory_table(found.plan.memory, fit(found.plan.memory, devices)))
    for note in found.plan.notes:
        screen.print(f"Note: {note}", markup=False, soft_wrap=True)


def show_applied(applied: Applied) -> None:
    """Print each setting as wanted and as the engine reports it."""
    from rich.table import Table

    table = Table("Setting", "Wanted", "Read back", "", box=None, pad_edge=False)
    for setting in applied.settings:
        found = "–" if setting.verdict == "not reported" else _value(setting.found)
        table.add_row(setting.name, _value(setting.wanted), found, setting.verdict)
    console().print(table)
    state = "Rolled back: the engine did not take all of it." if applied.rolled_back else "Applied, and read back."
    console().print(state)


def _settings(settings: Sequence[Setting]) -> Table:
    from rich.table import Table

    table = Table("Setting", "Value", "Where", "Evidence", "Reason", box=None, pad_edge=False)
    for each in settings:
        table.add_row(each.name, _value(each.value), each.where, each.evidence, each.reason)
    return table


def _verdict(plan: Plan) -> list[str]:
    lines = [_FITS[plan.fits]] if _FITS[plan.fits] else []
    if plan.prediction is not None:
        depth = plan.prediction.depth
        lines.append(f"Prefill of {depth} tokens: {format_rate(plan.prediction.prefill)}")
        lines.append(f"Decode at {depth} tokens: {format_rate(plan.prediction.decode)}")
    return ["", *(line for line in lines if line)]


def _value(value: Value) -> str:
    if value is None:
        return "not set"
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

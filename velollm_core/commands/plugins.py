"""`velollm plugins`: what is installed, what it offers, and why one failed."""

from __future__ import annotations

import click

from velollm_core.options import json_option
from velollm_core.plugins import PluginInfo, Plugins
from velollm_core.render import console, document, print_json


@click.command(epilog="Example: velollm plugins --json")
@json_option
def command(as_json: bool) -> None:
    """List plugins: name, distribution, version, hooks, state, and why one is blocked or failed."""
    infos = list(Plugins.load().infos.values())
    if as_json:
        print_json(document("plugins", plugins=infos))
    else:
        _show(infos)


def _show(infos: list[PluginInfo]) -> None:
    from rich.table import Table

    table = Table("Plugin", "Distribution", "Version", "Hooks", "State", "Reason", box=None, pad_edge=False)
    for info in infos:
        hooks = ", ".join(info.hooks) or "–"
        table.add_row(
            info.name, info.distribution or "unknown", info.version or "unknown", hooks, info.state, info.reason
        )
    console().print(table if infos else "No plugins are installed; `pip install velollm[ollama]` brings one.")

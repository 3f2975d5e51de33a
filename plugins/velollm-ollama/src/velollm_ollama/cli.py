"""`velollm ollama`: its settings, models, and tuning."""

from __future__ import annotations

import click

from velollm_core.options import connection_options, json_option, use_connection
from velollm_core.render import console, document, print_json
from velollm_ollama import views
from velollm_ollama.cli_config import config
from velollm_ollama.cli_tune import tune
from velollm_ollama.listing import list_models
from velollm_ollama.reach import reach


@click.group(name="ollama")
def command() -> None:
    """Ollama: the settings it really reads, its models, and tuning one of them."""


command.add_command(config)
command.add_command(tune)


@command.command(epilog="Example: velollm ollama models")
@connection_options
@json_option
def models(url: str | None, api_key: str | None, binary: str | None, as_json: bool) -> None:
    """List the models of the server: size, what is loaded and where, parameters of their own."""
    use_connection("ollama", url=url, api_key=api_key, binary=binary)
    found = reach(list_models)
    if as_json:
        print_json(document("ollama.models", models=found))
    else:
        views.show_models(console(), found)

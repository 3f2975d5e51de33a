"""`velollm llamacpp generate` and `serve`: the core's scheduler over llama.cpp in a child process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from velollm_core.options import json_option
from velollm_llamacpp.addresses import OWN_PORT
from velollm_llamacpp.served import OWNER

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def engine_options(command: Any) -> Any:
    """What `EngineOptions` takes, under the words that all commands use."""
    from velollm_llamacpp.library import FLASH_ATTENTION

    for option in (
        click.option("--no-prefix-cache", is_flag=True, help="Keep nothing of earlier requests."),
        click.option("--swap", "swap_mib", type=click.IntRange(min=0), default=0, metavar="MIB", show_default=True,
                     help="Main memory for the state of preempted requests; 0 computes it again."),
        click.option("--flash-attn", type=click.Choice(list(FLASH_ATTENTION)), default="auto", show_default=True),
        click.option("--gpu-layers", type=int, default=-1, show_default=True, help="-1: as many as llama.cpp would."),
        click.option("--threads", type=click.IntRange(min=0), default=0, help="0: as many as llama.cpp would."),
        click.option("--parallel", type=click.IntRange(1, 96), default=8, show_default=True,
                     help="Requests at a time."),
        click.option("--total-context", type=click.IntRange(min=32), default=4096, show_default=True,
                     help="Tokens of all requests together: the cache's size."),
        click.option("--context", type=click.IntRange(min=2), help="Tokens of one request, prompt and answer."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("generate", epilog="Example: velollm llamacpp generate model.gguf --prompt Hello --max-tokens 8")
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="May be repeated; stdin without any.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help="The longest answer.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True)
@click.option("--top-k", type=click.IntRange(min=0), default=0, show_default=True, help="0: all tokens.")
@click.option("--min-p", type=click.FloatRange(0, 1), default=0.0, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="The same again with the same seed.")
@click.option("--ignore-eos", is_flag=True, help="Go on to --max-tokens, whatever the model says.")
@engine_options
@json_option
def generate_command(model: Path, prompts: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Answer prompts with MODEL, a GGUF file, side by side in one cache of blocks."""
    from velollm_core.backends.request import SamplingParams
    from velollm_core.parts import installed_parts
    from velollm_core.render import document, format_bytes, print_json
    from velollm_llamacpp.engine.engine import open_engine
    from velollm_llamacpp.engine.generate import generate

    names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "ignore_eos")
    params = SamplingParams(**{name: given[name] for name in names})
    asked = list(prompts) or [sys.stdin.read()]
    with open_engine(model, chosen(given), installed_parts()) as engine:
        done = generate(engine, asked, params)
    if as_json:
        print_json(document("llamacpp.generate", model=str(model), generation=done))
        return
    for answer in done.answers:
        click.echo(answer.text)
    count = sum(answer.completion_tokens for answer in done.answers)
    rate = f"{count} tokens in {done.seconds:.2f} s, KV cache {format_bytes(done.cache_bytes)}"
    click.echo(f"velollm: {rate}, {done.preemptions} preemptions", err=True)


@click.command("serve", epilog="Example: velollm llamacpp serve model.gguf --parallel 16")
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=OWN_PORT, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="VELOLLM_LLAMACPP_API_KEY", metavar="KEY", help="Ask every request for this key.")
@click.option("--max-waiting", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N",
              help="Requests that may wait; more are turned away with 429.")  # fmt: skip
@engine_options
def serve_command(model: Path, host: str, port: int, api_key: str | None, max_waiting: int, **given: Any) -> None:
    """Serve MODEL, a GGUF file, as OpenAI's clients expect it.

    /v1/models, /v1/completions, /v1/chat/completions, /health. Loopback only unless --host says otherwise.
    """
    import asyncio

    from velollm_core.engine.async_engine import AsyncEngine
    from velollm_core.parts import installed_parts
    from velollm_core.serving.address import check_address
    from velollm_core.serving.server import serve
    from velollm_core.serving.service import Service
    from velollm_llamacpp.engine.engine import open_engine

    check_address(host, port)
    if host not in LOOPBACK and not api_key:
        click.echo(f"velollm: whoever can reach {host} can use this server; --api-key asks for a key", err=True)
    engine = open_engine(model, chosen(given), installed_parts())
    running = AsyncEngine(engine.loop, max_waiting=max_waiting)
    # A child that dies between two requests ends the server too, not the next request.
    engine.text.process.when_it_dies(running.fail)
    service = Service(running, engine.text, engine.limits.max_model_len, owner=OWNER, root=str(model.resolve()))

    def ready(url: str) -> None:
        click.echo(f"Serving {engine.text.name} at {url}/v1")

    try:
        asyncio.run(serve(service, host=host, port=port, api_key=api_key, ready=ready))
    finally:
        running.close()
        engine.close()


def chosen(given: dict[str, Any]) -> Any:
    """The `EngineOptions` of a command's options."""
    from velollm_llamacpp.engine.options import EngineOptions

    names = ("context", "total_context", "parallel", "threads", "gpu_layers", "flash_attn")
    return EngineOptions(
        **{name: given[name] for name in names},
        swap_bytes=given["swap_mib"] * 2**20,
        prefix_cache=not given["no_prefix_cache"],
    )

"""`velollm cuda`: generate with the engine, serve it, measure it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velollm_core.options import json_option, output_option
from velollm_cuda.backend import PORT
from velollm_cuda.bench.names import PARTS
from velollm_cuda.cli_options import chosen, engine_options

if TYPE_CHECKING:
    from velollm_cuda.output import Generation
    from velollm_cuda.params import SamplingParams

ON_CPU = "velollm: on the CPU, by plain torch: no NVIDIA card that this engine can use, or --device cpu"
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.group()
def command() -> None:
    """VeloLLM's own engine: Triton paged attention and continuous batching, on a CPU by plain torch."""


@command.command(epilog="Example: velollm cuda generate test-model --prompt Hello --max-tokens 8")
@click.argument("model")
@click.option("-p", "--prompt", "prompts", multiple=True, metavar="TEXT", help="May be repeated; stdin without any.")
@click.option("--chat", is_flag=True, help="Write each prompt as a user's turn, by the model's chat template.")
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="The longest answer; 128 if not given.")
@click.option("--temperature", type=click.FloatRange(min=0), metavar="T", help="0 is greedy.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the likeliest tokens that make up P.")
@click.option("--top-k", type=click.IntRange(min=0), metavar="K", help="Draw from the K likeliest tokens.")
@click.option("--n", type=click.IntRange(min=1), metavar="N", help="Answers to each prompt.")
@click.option("--stop", multiple=True, metavar="TEXT", help="End before this text; may be repeated.")
@click.option("--ignore-eos", is_flag=True, help="Go on to --max-tokens, whatever the model says.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same again with the same seed.")
@engine_options
@output_option
@json_option
def generate(model: str, prompts: tuple[str, ...], chat: bool, **given: Any) -> None:
    """Answer prompts with MODEL, a folder with config.json and safetensors, or a hub id.

    What is not said is done as the model's authors do it (generation_config.json).
    """
    from velollm_core.parts import installed_parts
    from velollm_cuda.llm import LLM

    asked = list(prompts) or [sys.stdin.read()]
    with LLM(model, revision=given["revision"], parts=installed_parts(), **chosen(given)) as llm:
        if llm.engine.runner.state.device.type == "cpu":
            click.echo(ON_CPU, err=True)
        params = _params(llm.default_params, given)
        if chat:
            answers = llm.chat([[{"role": "user", "content": text}] for text in asked], params)
        else:
            answers = llm.generate(asked, params)
    _write(model, answers, given["output"], as_json=given["as_json"])


@command.command(epilog="Example: velollm cuda serve test-model --max-num-seqs 8")
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free one.")
@click.option("--api-key", envvar="VELOLLM_CUDA_API_KEY", metavar="KEY", help="Ask every request for this key.")
@click.option("--name", metavar="NAME", help="What requests call the model; MODEL if not given.")
@click.option(
    "--max-waiting", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N",
    help="Requests that may wait; more are turned away with 429.",
)  # fmt: skip
@click.option(
    "--request-timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, show_default=True,
    metavar="SECONDS", help="The longest a request may take, from its first byte to its last token.",
)  # fmt: skip
@engine_options
def serve(model: str, host: str, port: int, api_key: str | None, **given: Any) -> None:
    """Serve MODEL, a folder or a hub id, as OpenAI's clients expect it, until Ctrl-C.

    /v1/models, /v1/completions, /v1/chat/completions, /health, /metrics. Loopback only unless --host says otherwise.
    """
    from velollm_core.serving.address import check_address

    check_address(host, port)
    from velollm_core.parts import installed_parts
    from velollm_cuda.options import SERVED_BATCH_TOKENS, EngineOptions
    from velollm_cuda.served import ServedModel
    from velollm_cuda.server import serve_model

    if host not in LOOPBACK and not api_key:
        click.echo(f"velollm: whoever can reach {host} can use this server; --api-key asks for a key", err=True)
    options = EngineOptions(**{"max_num_batched_tokens": SERVED_BATCH_TOKENS, **chosen(given)})
    served = ServedModel.start(
        model, options, name=given["name"], revision=given["revision"],
        max_waiting=given["max_waiting"], parts=installed_parts,
    )  # fmt: skip
    device = served.facts.device
    where = "the CPU, by plain torch" if device == "cpu" else device

    def ready(url: str) -> None:
        click.echo(f"Serving {served.text.name} on {where} at {url}/v1")

    serve_model(
        served, host=host, port=port, api_key=api_key, ready=ready, most_seconds=given["request_timeout"]
    )  # fmt: skip


@command.command(epilog="Example: velollm cuda bench host")
@click.argument("part", type=click.Choice(list(PARTS)))
@output_option
@json_option
def bench(part: str, output: Path | None, as_json: bool) -> None:
    """Measure one PART of the engine on this card, beside what the card itself can do in the same run.

    Every figure is a median with the span of its runs; bars are judged on an H100 only.
    """
    from velollm_core.render import write_text
    from velollm_cuda.bench.parts import run_part

    report = run_part(part)
    if output is not None:
        write_text(output, report.json if output.suffix == ".json" else report.text)
    click.echo(report.json if as_json else report.text, nl=False)


@command.command("make-test-model", epilog="Example: velollm cuda make-test-model another-model")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--shape", type=click.Choice(["tiny", "0.6b", "1b", "8b"]), default="tiny", show_default=True,
    help="All but tiny have no weights: load them with --load-format dummy.",
)  # fmt: skip
@json_option
def make_test_model(folder: Path, shape: str, as_json: bool) -> None:
    """Make a model that knows nothing but runs like any other: a llama out of a seed, with a tokenizer of bytes."""
    from velollm_core.errors import VeloError
    from velollm_core.render import document, format_bytes, print_json
    from velollm_cuda.bench.models import write_model
    from velollm_cuda.testing import write_tiny_model

    try:
        write_tiny_model(folder) if shape == "tiny" else write_model(folder, shape)
    except OSError as error:
        raise VeloError(f"{folder}: cannot be written: {error.strerror}") from error
    count = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    if as_json:
        print_json(document("cuda.make-test-model", path=str(folder), bytes=count, shape=shape))
    else:
        click.echo(f"Wrote {folder}: {format_bytes(count)}.")


def _params(own: SamplingParams, given: dict[str, Any]) -> SamplingParams:
    """The model's own way, but for what was said."""
    from attrs import evolve

    names = ("max_tokens", "temperature", "top_p", "top_k", "n", "seed", "ignore_eos")
    said = {name: given[name] for name in names if given[name] is not None}
    return evolve(own, stop=given["stop"], **said)


def _write(model: str, answers: list[Generation], output: Path | None, *, as_json: bool) -> None:
    from velollm_core.render import document, to_json, write_text

    text = "\n".join(each.text for answer in answers for each in answer.outputs) + "\n"
    whole = to_json(document("cuda.generate", model=model, answers=answers))
    if output is not None:
        write_text(output, whole if output.suffix == ".json" else text)
    click.echo(whole if as_json else text, nl=False)

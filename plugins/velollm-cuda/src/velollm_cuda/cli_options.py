"""How a model is loaded, as command-line options: the fields of `EngineOptions` that people set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])

OPTIONS = (
    click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "float16", "bfloat16"]),
        default="auto",
        show_default=True,
        help="Weights and cache; auto is the checkpoint's own on a GPU, float32 on a CPU.",
    ),
    click.option("--device", metavar="DEVICE", help="cpu, cuda or cuda:N; a GPU where there is one."),
    click.option(
        "--gpu-memory-utilization",
        type=click.FloatRange(0, 1, min_open=True),
        default=0.9,
        show_default=True,
        help="Share of the card's memory that may be full, others' use included.",
    ),
    click.option("--max-model-len", type=click.IntRange(min=2), metavar="N", help="Tokens of a prompt and its answer."),
    click.option(
        "--max-num-seqs",
        type=click.IntRange(min=1),
        default=256,
        show_default=True,
        metavar="N",
        help="Answers that are written at a time.",
    ),
    click.option(
        "--max-num-batched-tokens",
        type=click.IntRange(min=1),
        metavar="N",
        help="Tokens of one step, of prompts and answers; 1024 behind a server, else 8192.",
    ),
    click.option(
        "--kv-cache-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="Bytes of KV cache; else what is free.",
    ),
    click.option(
        "--kv-cache-dtype",
        type=click.Choice(["auto", "fp8"]),
        default="auto",
        show_default=True,
        help="fp8 holds twice the tokens, in a byte each.",
    ),
    click.option("--enforce-eager", is_flag=True, help="Capture no CUDA graphs: a quicker start, slower steps."),
    click.option(
        "--load-format",
        type=click.Choice(["auto", "dummy"]),
        default="auto",
        show_default=True,
        help="dummy draws random weights, for benchmarks.",
    ),
    click.option("--revision", metavar="NAME", help="Branch, tag or commit of a hub id."),
)


def engine_options(command: Command) -> Command:
    """``--dtype``, ``--max-model-len`` and their like."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was said of `engine_options`, out of all that a command was given: fields of `EngineOptions`."""
    from attrs import fields

    from velollm_cuda.options import EngineOptions

    known = {each.name for each in fields(EngineOptions)}
    return {name: value for name, value in given.items() if name in known and value is not None}

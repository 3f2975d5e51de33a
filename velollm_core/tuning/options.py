"""The options of `velollm optimize --measure`, gathered into what is to be measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps

import click
from attrs import frozen

from velollm_core.autopilot.duration import duration
from velollm_core.autopilot.shape import Shape


@frozen
class Measuring:
    """Requests of ``shape``, for ``budget`` seconds; ``fresh`` begins anew instead of going on."""

    shape: Shape
    budget: float
    fresh: bool


_OPTIONS = (
    click.option("--measure", is_flag=True, help="Race settings against each other, and keep what is proven to win."),
    click.option("--budget", callback=duration, default="10m", show_default=True, help="Time for --measure: 90s, 10m."),
    click.option(
        "--prompt-tokens", type=click.IntRange(8), default=512, show_default=True, help="Tokens in, per request."
    ),
    click.option(
        "--answer-tokens", type=click.IntRange(2), default=128, show_default=True, help="Tokens out, per request."
    ),
    click.option("--fresh", is_flag=True, help="Begin --measure anew instead of going on with one that was stopped."),
)


def measure_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--measure`` and what belongs to it, handed to ``command`` as one ``measuring``; None without it."""

    @wraps(command)
    def gathered(**options: object) -> None:
        wanted = options.pop("measure")
        prompt, answer = int(str(options.pop("prompt_tokens"))), int(str(options.pop("answer_tokens")))
        budget, fresh = float(str(options.pop("budget"))), bool(options.pop("fresh"))
        shape = Shape(prompt, answer, int(str(options["parallel"])))
        command(measuring=Measuring(shape, budget, fresh) if wanted else None, **options)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered

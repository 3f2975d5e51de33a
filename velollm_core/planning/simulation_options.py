"""The options of `velollm plan` that try the plan with a load."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.planning.simulation_asked import SimulationAsked

_OPTIONS = (
    click.option(
        "--simulate", "load", metavar="LOAD", help="Try it: burst:64, steady:2.5, ramp:1:8, or a .jsonl file."
    ),
    click.option(
        "--lengths",
        default="100-1024/100-1024",
        show_default=True,
        metavar="PROMPT/ANSWER",
        help="Tokens of simulated requests, cut to the context.",
    ),
    click.option(
        "--slo",
        default="1/0.1",
        show_default=True,
        metavar="TTFT/TPOT",
        help="What 99% of them shall get: seconds to the first token, seconds for each after it.",
    ),
    click.option("--seconds", type=click.FloatRange(min=1), default=60, show_default=True, help="How long loads last."),
    click.option("--seed", type=int, default=0, show_default=True, help="The same seed, the same simulated requests."),
)


def simulation_options(command: Callable[..., None]) -> Callable[..., None]:
    """``--simulate`` and what shapes it, handed to ``command`` as ``simulated``, None where it was not asked for."""

    @wraps(command)
    def gathered(load: str | None, lengths: str, slo: str, seconds: float, seed: int, **options: object) -> None:
        command(simulated=load and _asked(load, lengths, slo, seconds, seed), **options)

    for option in reversed(_OPTIONS):
        gathered = option(gathered)
    return gathered


def _asked(load: str, lengths: str, slo: str, seconds: float, seed: int) -> SimulationAsked:
    from velollm_core.engine.loads import Lengths
    from velollm_core.engine.simulator import Slo
    from velollm_core.planning.simulation_asked import SimulationAsked

    prompt, answer = _two(lengths, "/", "--lengths", "100-1024/100-1024")
    ttft, tpot = _two(slo, "/", "--slo", "1/0.1")
    try:
        promise = Slo(float(ttft), float(tpot))
    except ValueError as error:
        raise click.UsageError(f"--slo takes two numbers of seconds like 1/0.1, not {slo}") from error
    return SimulationAsked(load, Lengths(_span(prompt), _span(answer)), promise, seconds, seed)


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    try:
        span = int(low), int(high or low)
    except ValueError:
        span = 0, 0
    if not 1 <= span[0] <= span[1]:
        raise click.UsageError(f"--lengths takes tokens like 512 or 100-1024, not {text}")
    return span


def _two(text: str, separator: str, option: str, example: str) -> tuple[str, str]:
    first, found, second = text.partition(separator)
    if not found:
        raise click.UsageError(f"{option} takes two values like {example}, not {text}")
    return first, second

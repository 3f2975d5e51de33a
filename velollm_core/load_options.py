"""The options that turn a benchmark into a load."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from velollm_core.autopilot.duration import duration
from velollm_core.benchmark.arrivals import PATTERNS, Arrivals
from velollm_core.benchmark.dataset import Dataset, read_dataset
from velollm_core.benchmark.lengths import parse_lengths
from velollm_core.benchmark.load import Load, Slo

Command = TypeVar("Command", bound=Callable[..., object])

SECONDS = 60.0
POSITIVE = click.FloatRange(0, min_open=True)
_WANTED = ("duration", "requests", "rate", "arrivals", "dataset")
_OWNERS = {"burstiness": "gamma", "burst": "burst", "end_rate": "ramp"}
_DEFAULTS = {"burstiness": 1.0, "burst": 1, "end_rate": None, "think": 0.0, "turns": 1, "shared_prefix": 0, "slo": None}
_IDLE = ("think", "slo", "shared_prefix", *_OWNERS)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def _span(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else duration(ctx, param, value)


OPTIONS = (
    click.option("--duration", callback=_span, metavar="TIME", help="Load for TIME (90s, 3m) instead of the suite."),
    click.option("--requests", type=click.IntRange(1), help="Load until this many requests were sent."),
    click.option("--rate", type=POSITIVE, help="Requests a second, however many wait: open loop."),
    click.option("--arrivals", type=click.Choice(PATTERNS), help="How they come; poisson unless said."),
    click.option("--burstiness", type=POSITIVE, default=1.0, help="Gamma arrivals: below 1 in clumps."),
    click.option("--burst", type=click.IntRange(1), default=1, help="Burst arrivals: how many at the same moment."),
    click.option("--end-rate", type=POSITIVE, help="Ramp arrivals: requests a second at the end."),
    click.option("--think", type=click.FloatRange(0), default=0.0, help="Seconds a user thinks before asking again."),
    click.option("--turns", type=click.IntRange(1), default=1, help="Turns of a conversation, each after all before."),
    click.option("--shared-prefix", type=click.IntRange(0), default=0, help="Tokens that all requests begin with."),
    click.option("--dataset", type=_file, help="Requests of a file: prompts, chats, ShareGPT or a trace."),
    click.option("--slo", metavar="LIMITS", help="ttft=0.5,tpot=0.05,e2e=10 (seconds): count goodput."),
)  # fmt: skip


def load_options(command: Command) -> Command:
    """``--rate``, ``--duration`` and what belongs to them."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def asked_load(given: Mapping[str, Any]) -> Load | None:
    """The load that the options describe; None where none of them asks for one.

    Raises:
        click.UsageError: options that contradict each other.
        VeloError: the data set or a length cannot be read.
    """
    if all(given[name] is None for name in _WANTED) and given["turns"] == 1:
        if idle := [name for name in _IDLE if given[name] != _DEFAULTS[name]]:
            option = f"--{idle[0].replace('_', '-')}"
            raise click.UsageError(f"{option} belongs to a load: give --duration, --requests, --rate or --dataset too")
        return None
    dataset = given["dataset"]
    recorded = read_dataset(dataset) if dataset is not None else Dataset((), ())
    arrivals = _arrivals(given, _pattern(given), recorded)
    if arrivals is not None and (given["think"] or given["turns"] > 1):
        raise click.UsageError("--think and --turns belong to users who wait: leave --rate and --arrivals out")
    for name in ("turns", "shared_prefix"):
        if given[name] != _DEFAULTS[name] and recorded.entries:
            raise click.UsageError(f"--{name.replace('_', '-')} makes its own requests: leave --dataset out")
    seconds = given["duration"]
    if seconds is None:
        seconds = max(recorded.times) + 1.0 if arrivals and arrivals.pattern == "replay" else SECONDS
    return Load(
        seconds=seconds if given["duration"] is not None or given["requests"] is None else 24 * 3600.0,
        requests=given["requests"],
        arrivals=arrivals,
        think=given["think"],
        prompt=parse_lengths(given["prompt_tokens"]),
        answer=parse_lengths(given["answer_tokens"]),
        entries=recorded.entries,
        turns=given["turns"],
        shared=given["shared_prefix"],
        slo=_slo(given["slo"]),
    )


def _pattern(given: Mapping[str, Any]) -> str | None:
    """The pattern that is named, or that an option belongs to.

    Raises:
        click.UsageError: an option belongs to another pattern.
    """
    pattern: str | None = given["arrivals"]
    for option, owner in _OWNERS.items():
        if given[option] == _DEFAULTS[option]:
            continue
        if pattern not in (None, owner):
            raise click.UsageError(f"--{option.replace('_', '-')} belongs to --arrivals {owner}, not {pattern}")
        pattern = owner
    return pattern


def _arrivals(given: Mapping[str, Any], pattern: str | None, recorded: Dataset) -> Arrivals | None:
    rate = given["rate"]
    if rate is None and pattern is None:
        return None
    if pattern == "replay":
        if not recorded.times:
            raise click.UsageError("--arrivals replay needs --dataset FILE whose entries carry timestamp or at")
        return Arrivals("replay", times=recorded.times)
    if rate is None:
        raise click.UsageError(f"--arrivals {pattern} needs --rate")
    if pattern == "ramp" and (given["end_rate"] is None or (given["duration"] is None and given["requests"])):
        raise click.UsageError("--arrivals ramp needs --end-rate, and --duration rather than --requests")
    return Arrivals(
        pattern or "poisson",  # type: ignore[arg-type]  # click has checked the choice
        rate=rate,
        burstiness=given["burstiness"],
        burst=given["burst"],
        end_rate=given["end_rate"],
    )


def _slo(text: str | None) -> Slo | None:
    if text is None:
        return None
    try:
        limits = {name.strip(): float(value) for name, value in (part.split("=") for part in text.split(","))}
        if all(0 < limit < math.inf for limit in limits.values()):
            return Slo(**limits)
    except (TypeError, ValueError):
        pass
    raise click.UsageError(f"--slo {text!r}: write ttft=0.5,tpot=0.05,e2e=10 with any of the three")

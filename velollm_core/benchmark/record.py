"""Samples, blocks and runs as lines of JSON: the schema ``velollm.sample/1``, one for all backends.

Each line is an object with ``schema``, ``kind`` (``run``, ``sample``, ``block``, ``quality`` or ``plausibility``) and
``run``, the run's id. A run's line comes first and says what was measured where; times are seconds since the run began.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isfinite
from typing import Any

import attrs

from velollm_core.backends.request import Usage
from velollm_core.benchmark.block import Block
from velollm_core.benchmark.canary import Canary
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.environment import Environment
from velollm_core.benchmark.gpu_watch import GpuRecord
from velollm_core.benchmark.noise import Noise
from velollm_core.benchmark.plausibility import Plausibility
from velollm_core.benchmark.quality import Guarded, Quality
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.timing import Failure, RequestTiming
from velollm_core.benchmark.workload import Workload

SCHEMA = "velollm.sample/1"
DIGITS = 6


def run_line(run: str, workload: Workload, environment: Environment, **more: object) -> str:
    """The line that opens a run; ``more`` are further plain values, such as the settings of each arm."""
    return _line(
        "run",
        run,
        backend=environment.backend,
        model=workload.model,
        workload=_workload(workload),
        environment=attrs.asdict(environment),
        **more,
    )


def _workload(workload: Workload) -> dict[str, Any]:
    fields = attrs.asdict(workload)
    if workload.load is not None:
        # A data set of other people's conversations stays where it is.
        fields["load"]["entries"] = len(workload.load.entries)
    return fields


def block_line(run: str, block: Block) -> str:
    """One block: its noise verdict and what the machine went through."""
    return _line("block", run, **attrs.asdict(block))


def sample_line(run: str, sample: Sample) -> str:
    """One request, times to the microsecond."""
    fields = attrs.asdict(sample, recurse=False)
    timing = fields.pop("timing")
    values = attrs.asdict(timing, recurse=False)
    values["usage"] = attrs.asdict(timing.usage)
    values["failure"] = attrs.asdict(timing.failure) if timing.failure else None
    values["arrivals"] = []
    for name in ("intended", "sent", "ended", "first_output"):
        values[name] = None if values[name] is None else round(values[name], DIGITS)
    line = _line("sample", run, **fields, **values)
    # Hundreds of times in a line, which is written while others wait to be sent: a format is five times as fast.
    times = (f"%.{DIGITS}f, " * len(timing.arrivals))[:-2] % timing.arrivals
    return line.replace('"arrivals": []', f'"arrivals": [{times}]', 1)


def plausibility_line(run: str, judged: Plausibility) -> str:
    """Whether the run's speeds can be."""
    return _line("plausibility", run, **attrs.asdict(judged))


def guarded_line(run: str, guarded: Guarded) -> str:
    """How the answers of an experiment's two arms compare, or the problem that kept them from being compared."""
    if guarded.quality is None:
        return _line("quality", run, problem=guarded.problem)
    fields = attrs.asdict(guarded.quality)
    # A runner-up that was ruled out altogether is infinitely far behind, which JSON cannot say.
    margin = fields["margin"]
    return _line("quality", run, **fields | {"margin": margin if margin is not None and isfinite(margin) else None})


def parse_line(line: str) -> dict[str, Any]:
    """One line as an object of this schema.

    Raises:
        ValueError: it is not JSON, or not of this schema.
    """
    value = json.loads(line)
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        found = value.get("schema") if isinstance(value, dict) else value
        raise ValueError(f"schema is {found!r:.60}, expected {SCHEMA!r}")
    return value


def parse_sample(fields: Mapping[str, Any]) -> Sample:
    """The sample of a parsed line.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or of the wrong type.
    """
    tokens, failure, first_output = fields["chunk_tokens"], fields["failure"], fields["first_output"]
    timing = RequestTiming(
        intended=_number(fields["intended"]),
        sent=_number(fields["sent"]),
        ended=_number(fields["ended"]),
        arrivals=tuple(_number(arrival) for arrival in fields["arrivals"]),
        chunk_tokens=None if tokens is None else tuple(int(number) for number in tokens),
        first_output=None if first_output is None else _number(first_output),
        usage=_usage(fields["usage"]),
        finish_reason=fields["finish_reason"],
        failure=Failure(str(failure["kind"]), str(failure["message"])) if failure else None,
    )
    return Sample(
        task=str(fields["task"]),
        index=int(fields["index"]),
        max_tokens=int(fields["max_tokens"]),
        timing=timing,
        arm=str(fields["arm"]),
        block=int(fields["block"]),
        warm_up=bool(fields["warm_up"]),
    )


def parse_block(fields: Mapping[str, Any]) -> Block:
    """The block of a parsed line.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or of the wrong type.
    """
    noise = fields["noise"]
    if noise["verdict"] not in ("clean", "noisy", "invalid"):
        raise ValueError(f"noise verdict {noise['verdict']!r}")
    return Block(
        index=int(fields["index"]),
        arm=str(fields["arm"]),
        began=_number(fields["began"]),
        before=_conditions(fields["before"]),
        after=_conditions(fields["after"]),
        noise=Noise(noise["verdict"], tuple(map(str, noise["causes"])), noise["canary_drift"]),
        gpus=tuple(_gpu(record) for record in fields.get("gpus", ())),
    )


def parse_guarded(fields: Mapping[str, Any]) -> Guarded:
    """What the line of `guarded_line` says.

    Raises:
        KeyError, TypeError, ValueError: a field is missing or of the wrong type.
    """
    if fields.get("problem") is not None:
        return Guarded(problem=str(fields["problem"]))
    place, margin = fields["first_divergence"], fields["margin"]
    quality = Quality(
        altered=tuple(map(str, fields["altered"])),
        prompts=int(fields["prompts"]),
        tokens=int(fields["tokens"]),
        equal=int(fields["equal"]),
        share=_number(fields["share"]),
        first_divergence=None if place is None else int(place),
        margin=None if margin is None else _number(margin),
        control=_number(fields["control"]),
    )
    return Guarded(quality)


def _line(kind: str, run: str, **fields: object) -> str:
    return json.dumps({"schema": SCHEMA, "kind": kind, "run": run, **fields}, allow_nan=False, ensure_ascii=False)


def _usage(fields: Mapping[str, Any]) -> Usage:
    # Later versions may count more; what this one does not know is left aside.
    known = {each.name: fields.get(each.name) for each in attrs.fields(Usage)}
    if any(value is not None and not isinstance(value, int | float) for value in known.values()):
        raise TypeError("usage holds something that is not a number")
    return Usage(**known)


def _conditions(fields: Mapping[str, Any]) -> Conditions:
    known: dict[str, Any] = {each.name: fields.get(each.name) for each in attrs.fields(Conditions)}
    canary = fields["canary"]
    return Conditions(**{**known, "canary": Canary(_number(canary["compute"]), _number(canary["memory"]))})


def _gpu(fields: Mapping[str, Any]) -> GpuRecord:
    names = [each.name for each in attrs.fields(GpuRecord)]
    known: dict[str, Any] = {name: fields[name] for name in names if name in fields or name != "processes"}
    return GpuRecord(**known)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise TypeError(f"{value!r:.40} is not a number")
    return float(value)

"""One side of a comparison of files: what stands behind it, and how the two differ beside their speed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from attrs import frozen

from velollm_core.benchmark.noise import Noise, overall
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.store import RunLog

ONE_RUN = math.log(1.05)
"""What two starts of the same are allowed to differ by where a side has but one: its own requests cannot tell.

With a spread of 2% from start to start, requests alone would call every other comparison of the same with the same a
difference.
"""


@frozen
class Side:
    """One side of a comparison: where it comes from, and what stands behind it."""

    name: str
    model: str
    backend: str
    runs: int
    requests: int
    failures: Mapping[str, int]
    noise: Noise


def describe_side(name: str, runs: Sequence[RunLog], samples: Sequence[Sample]) -> Side:
    """The side called ``name``: its last run's model and backend, and what became of ``samples``."""
    measured = [sample for sample in samples if not sample.warm_up]
    failures = Counter(sample.timing.failure.kind for sample in measured if sample.timing.failure)
    head = runs[-1].head
    return Side(
        name=name,
        model=str(head.get("model")),
        backend=str(head.get("backend")),
        runs=len(runs),
        requests=len(measured),
        failures=dict(failures),
        noise=overall(block.noise for run in runs for block in run.blocks),
    )


def machine_drift(one: Sequence[RunLog], other: Sequence[RunLog]) -> float:
    """How much the machine itself changed from one side to the other, by its canaries, as a log-ratio ≥ 0."""
    songs = [
        [(look.canary.compute, look.canary.memory) for run in runs for b in run.blocks for look in (b.before, b.after)]
        for runs in (one, other)
    ]
    if not all(songs):
        return 0.0
    before, after = ([median(column) for column in zip(*side, strict=True)] for side in songs)
    return max(abs(math.log(late / early)) for early, late in zip(before, after, strict=True))


def unknown_starts(sides: Sequence[Sequence[RunLog]]) -> float:
    """How much wider an interval has to be, as a log-ratio ≥ 0, for what changes from start to start; 0 if measured."""
    return 0.0 if all(len(runs) > 1 for runs in sides) else ONE_RUN


def side_notes(sides: Sequence[Side], runs: Sequence[Sequence[RunLog]], drift: float) -> Iterable[str]:
    """What a reader must know beside the ratio, a line each; ``drift`` is that of `machine_drift`."""
    first, second = sides
    if first.model != second.model:
        yield f"the models differ: {first.model} and {second.model}"
    if first.backend != second.backend:
        yield f"the backends differ: {first.backend} and {second.backend}"
    machines = [(each[-1].head.get("environment") or {}).get("system") for each in runs]
    if machines[0] != machines[1]:
        yield f"the machines differ: {machines[0]} and {machines[1]}"
    if not all(side.runs > 1 for side in sides):
        yield (
            "one run on a side cannot tell what changes from start to start: the interval allows "
            f"{math.expm1(ONE_RUN):.0%} for it; measure again with the same -o FILE (runs are added to it)"
        )
    if drift > 0.01:
        change = f"{math.expm1(drift):.1%}"
        yield f"the machine's reference work changed by {change} between the two; the interval allows for it"
    for side in sides:
        if side.failures:
            yield f"{side.name}: {sum(side.failures.values())} of {side.requests} requests failed"
        if side.noise.verdict != "clean":
            yield f"{side.name} was measured on a {side.noise.verdict} machine"

"""Whether the machine was quiet enough for what was measured on it, and if not, why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from attrs import frozen

from velollm_core.benchmark.canary import allowed_threads
from velollm_core.benchmark.conditions import Conditions
from velollm_core.benchmark.gpu_watch import GpuRecord

Quiet = Literal["clean", "noisy", "invalid"]

CANARY_DRIFT = 0.03
# The least share of a block's time that each of these must take to be called a cause.
CPU_WAITED = 0.10
MEMORY_WAITED = 0.01
STOLEN = 0.02
THROTTLED = 0.01
SLOWED = 0.01
ASLEEP_SECONDS = 1.0
_RANK: tuple[Quiet, ...] = ("clean", "noisy", "invalid")


@frozen
class Noise:
    """``noisy`` figures stand, with a wider spread; ``invalid`` ones are left out of comparisons."""

    verdict: Quiet
    causes: tuple[str, ...] = ()
    canary_drift: float | None = None


def judge(before: Conditions, after: Conditions, gpus: Sequence[GpuRecord] = ()) -> Noise:
    """The verdict on the time between two looks at the machine, and on what ``gpus`` went through meanwhile."""
    seconds = max(after.awake - before.awake, 1e-9)
    invalid = [*_asleep(before, after), *_slowed(gpus)]
    drift = before.canary.drift(after.canary)
    noisy = [f"the reference work changed its speed by {drift:.1%}"] if drift > CANARY_DRIFT else []
    for name, limit, text in (
        ("cpu_waited", CPU_WAITED, "work waited for a processor {share:.0%} of the time"),
        ("memory_waited", MEMORY_WAITED, "work waited for memory {share:.0%} of the time"),
        ("stolen", STOLEN, "the hypervisor gave {share:.0%} of a processor to others"),
        ("throttled", THROTTLED, "the cgroup's quota stopped us {share:.0%} of the time"),
    ):
        share = _grown(before, after, name) / seconds
        if share > limit:
            noisy.append(text.format(share=share))
    noisy += _loaded(before)
    if events := _grown(before, after, "overheated"):
        noisy.append(f"the processor throttled for heat {events:.0f} times")
    noisy += [f"{gpu.newcomers} other processes came to GPU {gpu.gpu}" for gpu in gpus if gpu.newcomers]
    noisy += [f"{gpu.processes} processes share GPU {gpu.gpu}" for gpu in gpus if gpu.processes > 1]
    verdict: Quiet = "invalid" if invalid else "noisy" if noisy else "clean"
    return Noise(verdict, (*invalid, *noisy), drift)


def overall(noises: Iterable[Noise]) -> Noise:
    """The verdict on several blocks: as bad as the worst, causes once each, most frequent first."""
    found = list(noises)
    causes = [cause for noise in found for cause in noise.causes]
    kinds: dict[str, list[str]] = {}
    for cause in causes:
        kinds.setdefault(_kind(cause), []).append(cause)
    lines = [
        same[0] if len(found) == 1 else f"{max(same, key=_size)} at most (in {len(same)} of {len(found)} blocks)"
        for same in sorted(kinds.values(), key=len, reverse=True)
    ]
    drifts = [noise.canary_drift for noise in found if noise.canary_drift is not None]
    worst: Quiet = max((noise.verdict for noise in found), key=_RANK.index, default="clean")
    return Noise(worst, tuple(lines), max(drifts, default=None))


def _asleep(before: Conditions, after: Conditions) -> Iterable[str]:
    if before.elapsed is None or after.elapsed is None:
        return
    asleep = (after.elapsed - before.elapsed) - (after.awake - before.awake)
    if asleep > ASLEEP_SECONDS:
        yield f"the machine slept for {asleep:.0f} s"


def _loaded(before: Conditions) -> Iterable[str]:
    """A load average above the processors there are, where no pressure counter says better."""
    if before.cpu_waited is None and before.load_average is not None and before.load_average > allowed_threads():
        yield f"{before.load_average:.1f} tasks wanted {allowed_threads()} processors when it began"


def _slowed(gpus: Sequence[GpuRecord]) -> Iterable[str]:
    for gpu in gpus:
        for name, share in gpu.slowed.items():
            if share > SLOWED:
                yield f"GPU {gpu.gpu} was under {name} {share:.0%} of the time"


def _grown(before: Conditions, after: Conditions, name: str) -> float:
    first, last = getattr(before, name), getattr(after, name)
    return max(0.0, last - first) if first is not None and last is not None else 0.0


def _size(cause: str) -> float:
    number = re.search(r"\d+(\.\d+)?", cause)
    return float(number.group()) if number else 0.0


def _kind(cause: str) -> str:
    return "".join(letter for letter in cause if not letter.isdigit() and letter not in ".%")

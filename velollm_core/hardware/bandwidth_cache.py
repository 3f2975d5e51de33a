"""The bandwidth measured on this machine, kept so that a plan need not wait for it."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.loose import at, items, number

STEADY = 0.75
"""The part of its windows that a measurement must have had to itself to be kept for good."""

AGAIN_SECONDS = 600.0
"""A measurement that was disturbed stands for ten minutes, then a better one is sought."""

MOST_KEPT = 64


def machine_key(cpu: Cpu, allowed: str) -> str:
    """What a measurement belongs to: this processor and the logical CPUs (and the time) that are ours."""
    parts = (cpu.architecture, cpu.model, cpu.threads, allowed, cpu.quota)
    return " | ".join(str(part) for part in parts)


def kept_samples(key: str, measure: Callable[[], object], now: Callable[[], float] = time.time) -> object:
    """The samples kept under ``key``, else what ``measure`` answers, kept from then on.

    Samples taken while other programs ran are measured again after ten minutes, and the calmer of both are kept.
    """
    kept = _load()
    old = kept.get(key)
    taken = number(at(old, "taken_at")) or 0.0
    if old is not None and (calmness(old) >= STEADY or 0 <= now() - taken < AGAIN_SECONDS):
        return old
    new = measure()
    if not isinstance(new, Mapping):
        return old
    best = old if old is not None and calmness(old) >= calmness(new) else new
    best = {**best, "taken_at": now()}
    _save({**dict(list(kept.items())[-MOST_KEPT:]), key: best})
    return best


def calmness(samples: object) -> float:
    """The share of a measurement's windows in which every thread was running, 0 to 1."""
    calm, disturbed = (len(items(at(samples, name), 4096)) for name in ("undisturbed", "disturbed"))
    return calm / (calm + disturbed) if calm + disturbed else 0.0


def _place() -> Path:
    from velollm_core.config import cache_dir

    return cache_dir() / "bandwidth.json"


def _load() -> dict[str, Mapping[str, object]]:
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)}


def _save(kept: Mapping[str, object]) -> None:
    """Whole or not at all; a cache that cannot be written costs a measurement next time, nothing else."""
    partial = _place().with_suffix(f".{os.getpid()}.part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(kept), encoding="utf-8")
        partial.replace(_place())
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()

"""A Mac's GPUs: by system_profiler; the working set by Metal, else by the limit that somebody set."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.hardware.apple import PROFILER, parse_profiler
from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.loose import at, count, text
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.metal import ask_metal


def find_apple(evidence: Evidence, memory: Memory, sysctl: Mapping[str, str]) -> Found:
    """By system_profiler; the working set by Metal, else by the limit that somebody set."""
    run = evidence.run(*PROFILER)
    metal = evidence.value("metal", ask_metal)
    wired = count(sysctl.get("iogpu.wired_limit_mb"))
    gpus = parse_profiler(run.stdout, memory, wired * 2**20 if wired else None, metal)
    notes = [run.complaint or "system_profiler: printed no GPU"] if not gpus else []
    if any(gpu.unified and gpu.memory_total is None for gpu in gpus):
        notes.append(
            f"Metal: working set unknown ({text(at(metal, 'error')) or 'no answer'}), iogpu.wired_limit_mb not set"
        )
    return Found(tuple(gpus), tuple(notes))

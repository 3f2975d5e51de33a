"""Processor and memory by psutil, for systems that VeloLLM has no reader of its own for."""

from __future__ import annotations

import os
import platform

from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.linux_cpu import megahertz
from velollm_core.hardware.loose import at, count, items, text
from velollm_core.hardware.memory import Memory


def portable_cpu(evidence: Evidence, architecture: str) -> Cpu:
    """The processor as psutil sees it; instruction sets and kinds of cores stay unknown."""
    found = evidence.value("psutil cpu", ask_cpu)
    affinity = items(at(found, "affinity"), 8192)
    cores, threads = count(at(found, "cores")), count(at(found, "threads"))
    allowed = len(affinity) or threads
    return Cpu(
        model=text(at(found, "model")),
        vendor=None,
        architecture=architecture,
        physical_cores=cores,
        threads=threads,
        allowed_threads=allowed,
        allowed_cores=cores if allowed == threads else None,
        quota=None,
        performance_cores=None,
        efficiency_cores=None,
        frequency_hz=megahertz(at(found, "megahertz")),
        max_frequency_hz=megahertz(at(found, "max_megahertz")),
        instruction_sets=(),
    )


def ask_cpu() -> dict[str, object]:
    """psutil's figures, each None where it has none."""
    import psutil

    try:
        frequency = psutil.cpu_freq()
    except (psutil.Error, OSError, NotImplementedError):
        frequency = None
    try:
        affinity = psutil.Process().cpu_affinity()
    except (psutil.Error, OSError, AttributeError):
        affinity = None
    return {
        "model": os.environ.get("PROCESSOR_IDENTIFIER") or platform.machine(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "affinity": affinity,
        "megahertz": frequency.current if frequency else None,
        "max_megahertz": frequency.max if frequency else None,
    }


def portable_memory(evidence: Evidence) -> Memory:
    """Memory as psutil sees it; zero where even that fails, which no plan can fit."""
    found = evidence.value("psutil memory", ask_memory)
    total = count(at(found, "total")) or 0
    available = min(count(at(found, "available")) or 0, total)
    return Memory(total, available, count(at(found, "swap_total")), count(at(found, "swap_free")))


def ask_memory() -> dict[str, object]:
    """psutil's figures, in bytes."""
    import psutil

    memory = psutil.virtual_memory()
    try:
        swap = psutil.swap_memory()
    except (psutil.Error, OSError):
        swap = None
    return {
        "total": memory.total,
        "available": memory.available,
        "swap_total": swap.total if swap else None,
        "swap_free": swap.free if swap else None,
    }

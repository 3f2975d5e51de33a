"""Look at the whole machine: what `velollm detect` shows, and every plan is made for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from attrs import evolve

from velollm_core.figures import Rate
from velollm_core.hardware.cgroup import CgroupLimits, read_cgroups
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.gpus import find_gpus
from velollm_core.hardware.linux_cpu import LAST_CACHE, cache_bytes, core_leaders, linux_cpu
from velollm_core.hardware.linux_memory import limited, linux_memory
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.machine import Hardware
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.platforms import read_platform


def detect_hardware(*, probe_bandwidth: bool = True) -> Hardware:
    """This machine now. Never raises: what cannot be read is None, with a note where a reader would wonder.

    With ``probe_bandwidth`` the memory bandwidth of the processor is measured where no earlier measurement is kept,
    which takes half a second.
    """
    return read_hardware(LiveEvidence(), probe_bandwidth=probe_bandwidth)


def detect_memory() -> Memory:
    """Main memory now, and nothing else: for whoever is about to fill it."""
    evidence = LiveEvidence()
    linux = read_platform(evidence, {}).system == "Linux"
    return _memory(evidence, read_cgroups(evidence) if linux else CgroupLimits(), linux=linux)


def read_hardware(evidence: Evidence, *, probe_bandwidth: bool = True) -> Hardware:
    """The machine behind ``evidence``: this one, or a recorded one."""
    found = _sysctl(evidence) if evidence.names("/System/Library/CoreServices") else {}
    platform = read_platform(evidence, found)
    linux = platform.system == "Linux"
    limits = read_cgroups(evidence) if linux else CgroupLimits()
    memory = _memory(evidence, limits, linux=linux)
    cpu = _cpu(evidence, platform.system, platform.machine, limits, found)
    gpus = find_gpus(evidence, platform.system, memory, found)
    notes = list(gpus.notes)
    if not memory.total:
        notes.append("memory: neither the system nor psutil tells how much there is")
    if probe_bandwidth:
        rate = _bandwidth(evidence, cpu, memory)
        cpu = evolve(cpu, bandwidth=rate)
        notes += [] if rate else ["memory bandwidth: not measured (too little memory free, or no C library)"]
    return Hardware(platform, cpu, memory, gpus.gpus, tuple(notes))


def _sysctl(evidence: Evidence) -> Mapping[str, str]:
    from velollm_core.hardware.mac import sysctl

    return sysctl(evidence)


def _memory(evidence: Evidence, limits: CgroupLimits, *, linux: bool) -> Memory:
    memory = linux_memory(evidence.read("/proc/meminfo") or "", limits) if linux else None
    if memory is not None:
        return memory
    from velollm_core.hardware.portable import portable_memory

    return limited(portable_memory(evidence), limits)


def _cpu(evidence: Evidence, system: str, machine: str, limits: CgroupLimits, found: Mapping[str, str]) -> Cpu:
    if system == "Darwin":
        from velollm_core.hardware.mac import mac_cpu

        return mac_cpu(found, machine)
    # Sandboxes without /sys and /proc/cpuinfo still have an interpreter that can count.
    cpu = linux_cpu(evidence, machine, limits.quota) if system == "Linux" else None
    if cpu is not None and cpu.threads:
        return cpu
    from velollm_core.hardware.portable import portable_cpu

    return evolve(portable_cpu(evidence, machine), quota=limits.quota)


def _bandwidth(evidence: Evidence, cpu: Cpu, memory: Memory) -> Rate | None:
    """Measured by one thread a core that is ours, or as many as the cgroup's time is enough for."""
    from velollm_core.hardware.bandwidth import bandwidth_rate, measure_bandwidth
    from velollm_core.hardware.bandwidth_cache import kept_samples, machine_key

    anywhere: Sequence[int | None] = [None] * (cpu.allowed_cores or cpu.allowed_threads or cpu.physical_cores or 1)
    cpus = core_leaders(evidence) or anywhere
    cpus = cpus[: max(1, math.ceil(cpu.quota))] if cpu.quota else cpus
    cache = cache_bytes(evidence.read(LAST_CACHE))
    key = machine_key(cpu, f"{cpu.allowed_threads} {cpu.allowed_cores}")
    samples = evidence.value(
        "bandwidth", lambda: kept_samples(key, lambda: measure_bandwidth(cpus, memory.available, cache))
    )
    return bandwidth_rate(samples, min(1.0, cpu.quota / len(cpus)) if cpu.quota else 1.0)

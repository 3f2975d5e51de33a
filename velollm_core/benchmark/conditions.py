"""What the machine goes through while it is measured: counters read before and after each block."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from attrs import evolve, field, frozen

from velollm_core.benchmark.canary import Canary, sing


@frozen
class Conditions:
    """One look at the machine; ``None`` where this system does not say.

    ``awake`` and ``elapsed`` are clocks without and with time asleep, ``wall`` the seconds since 1970. The
    ``*_waited`` are seconds in which some task waited for processor, memory or disk (PSI), ``stolen`` those that the
    hypervisor gave away, ``throttled`` those that the cgroup's quota took, ``overheated`` the thermal throttle events;
    all count up from boot.
    """

    wall: float
    awake: float
    elapsed: float | None
    canary: Canary
    load_average: float | None = None
    cpu_waited: float | None = None
    memory_waited: float | None = None
    disk_waited: float | None = None
    stolen: float | None = None
    throttled: float | None = None
    overheated: int | None = None


@frozen
class Sources:
    """Where the counters are read; tests point it elsewhere."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    canary: Callable[[], Canary] = field(factory=lambda: sing, eq=False)


def observe(*, closing: bool = False, sources: Sources | None = None) -> Conditions:
    """Read the counters and let the canary sing; about a tenth of a second.

    The canary sings outside the block: before the counters are read at its opening, after them at its ``closing``.
    """
    here = sources or Sources()
    if closing:
        return evolve(_counters(here), canary=here.canary())
    canary = here.canary()
    return evolve(_counters(here), canary=canary)


def _counters(here: Sources) -> Conditions:
    return Conditions(
        wall=time.time(),
        awake=time.monotonic(),
        elapsed=time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else None,
        canary=Canary(0.0, 0.0),
        load_average=_load_average(here.proc),
        cpu_waited=_pressure(here.proc / "pressure/cpu"),
        memory_waited=_pressure(here.proc / "pressure/memory"),
        disk_waited=_pressure(here.proc / "pressure/io"),
        stolen=_stolen(here.proc / "stat"),
        throttled=_throttled(here),
        overheated=_overheated(here.sys),
    )


def governor(sources: Sources | None = None) -> str | None:
    """The frequency governor of the first processor: ``performance``, ``powersave``, …"""
    path = (sources or Sources()).sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return _read(path).strip() or None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _load_average(proc: Path) -> float | None:
    if (text := _read(proc / "loadavg")) or proc != Sources().proc:
        return _number(text.partition(" ")[0])
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _pressure(path: Path) -> float | None:
    for line in _read(path).splitlines():
        if line.startswith("some "):
            total = _number(line.rpartition("total=")[2])
            return None if total is None else total / 1e6
    return None


def _stolen(path: Path) -> float | None:
    fields = _read(path).partition("\n")[0].split()
    ticks = _number(fields[8]) if len(fields) > 8 and fields[0] == "cpu" else None
    return None if ticks is None else ticks / os.sysconf("SC_CLK_TCK")


def _throttled(here: Sources) -> float | None:
    own = next((line[3:] for line in _read(here.proc / "self/cgroup").splitlines() if line.startswith("0::")), "/")
    for line in _read(here.sys / "fs/cgroup" / own.strip("/") / "cpu.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "throttled_usec" and (total := _number(value)) is not None:
            return total / 1e6
    return None


def _overheated(sys: Path) -> int | None:
    counts = [
        _number(_read(path)) for path in sorted(sys.glob("devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"))
    ]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None

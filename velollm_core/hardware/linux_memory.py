"""Main memory of a Linux machine, cut by what its control groups leave."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.hardware.cgroup import CgroupLimits
from velollm_core.hardware.loose import count
from velollm_core.hardware.memory import Memory


def parse_meminfo(text: str) -> Mapping[str, int]:
    """Bytes by name out of ``/proc/meminfo``."""
    found = {}
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        amount = count(rest.split()[0]) if colon and rest.split() else None
        if amount is not None and rest.split()[1:2] == ["kB"]:
            found[name.strip()] = amount * 1024
    return found


def linux_memory(text: str, limits: CgroupLimits) -> Memory | None:
    """The memory that ``/proc/meminfo`` tells of; None where it does not tell the total."""
    info = parse_meminfo(text)
    total = info.get("MemTotal")
    if not total:
        return None
    # Kernels before 3.14 have no MemAvailable; what is free or cached comes near it.
    available = info.get("MemAvailable", sum(info.get(name, 0) for name in ("MemFree", "Buffers", "Cached")))
    return limited(Memory(total, min(available, total), info.get("SwapTotal"), info.get("SwapFree")), limits)


def limited(memory: Memory, limits: CgroupLimits) -> Memory:
    """``memory`` cut by ``limits``; a limit at or above the machine's own total limits nothing."""
    smallest = limits.smallest
    if smallest is None or limits.left is None or smallest.limit >= memory.total:
        return memory
    return Memory(
        memory.total,
        min(memory.available, limits.left),
        memory.swap_total,
        memory.swap_free,
        smallest.limit,
        smallest.used,
    )

"""The processor of a Linux machine, out of /proc and /sys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from velollm_core.hardware.arm import arm_model
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.instructions import instruction_sets
from velollm_core.hardware.loose import count, items, number, size, text, whole

CPUS = "/sys/devices/system/cpu"
LAST_CACHE = f"{CPUS}/cpu0/cache/index3/size"
MOST_CPUS = 8192


def linux_cpu(evidence: Evidence, architecture: str, quota: float | None) -> Cpu:
    """What the kernel says of the processors and of this process's share of them."""
    blocks = parse_cpuinfo(evidence.read("/proc/cpuinfo") or "")
    first = blocks[0] if blocks else {}
    online = parse_cpu_list(evidence.read(f"{CPUS}/online") or "") or {
        n for b in blocks if (n := count(b.get("processor"))) is not None
    }
    affinity = {
        cpu for each in items(evidence.value("affinity", affinity_now), MOST_CPUS) if (cpu := count(each)) is not None
    }
    allowed = affinity & online or affinity
    cores = _cores(evidence, online, blocks)
    fast, slow = _kinds(evidence, architecture, online)
    return Cpu(
        model=text(first.get("model name")) or text(first.get("cpu model")) or arm_model(first),
        vendor=text(first.get("vendor_id")),
        architecture=architecture,
        physical_cores=_spanned(cores, online),
        threads=len(online) or None,
        allowed_threads=len(allowed) or None,
        allowed_cores=_spanned(cores, allowed),
        quota=quota,
        performance_cores=_spanned(cores, fast) if slow else None,
        efficiency_cores=_spanned(cores, slow) if slow else None,
        frequency_hz=_frequency(evidence, allowed, "scaling_cur_freq") or megahertz(first.get("cpu MHz")),
        max_frequency_hz=_frequency(evidence, allowed & fast or allowed, "cpuinfo_max_freq"),
        instruction_sets=instruction_sets(
            " ".join(first.get(key, "") for key in ("flags", "Features", "isa", "features"))
        ),
        allowed_performance_cores=_spanned(cores, fast & allowed) if slow else None,
    )


def core_leaders(evidence: Evidence) -> Sequence[int]:
    """One allowed CPU of each physical core that is ours: where threads run that should not share a core."""
    leaders: list[int] = []
    taken: set[int] = set()
    for each in items(evidence.value("affinity", affinity_now), MOST_CPUS):
        cpu = count(each)
        if cpu is not None and cpu not in taken:
            leaders.append(cpu)
            taken |= _siblings(evidence, cpu)
    return leaders


def affinity_now() -> list[int]:
    """The logical CPUs this process may run on: affinity and cpuset together."""
    import os

    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def parse_cpuinfo(document: str) -> Sequence[Mapping[str, str]]:
    """The blocks of ``/proc/cpuinfo``, one a logical CPU (on some machines with a last block for the board)."""
    blocks = []
    for block in document.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        found = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if found:
            blocks.append(found)
    return blocks


def parse_cpu_list(document: str) -> AbstractSet[int]:
    """CPU numbers out of the kernel's list format, ``0-3,8,10-11``; parts that do not fit are left out."""
    cpus: set[int] = set()
    for part in document.strip().split(",")[:MOST_CPUS]:
        low, dash, high = part.partition("-")
        start, end = count(low), count(high if dash else low)
        if start is not None and end is not None and start <= end < MOST_CPUS:
            cpus.update(range(start, end + 1))
    return cpus


def megahertz(value: object) -> int | None:
    """Hz out of a number of MHz."""
    figure = number(value)
    return round(figure * 1e6) if figure and 0 < figure < 1e6 else None


def _cores(evidence: Evidence, online: AbstractSet[int], blocks: Sequence[Mapping[str, str]]) -> Mapping[int, object]:
    """Each logical CPU's physical core, as any name that its siblings share."""
    cores: dict[int, object] = {}
    for cpu in sorted(online):
        if cpu in cores:
            continue
        cores.update(dict.fromkeys(_siblings(evidence, cpu), cpu))
    return cores or _cores_of_cpuinfo(blocks)


def _siblings(evidence: Evidence, cpu: int) -> AbstractSet[int]:
    """The CPUs of one physical core; empty where the kernel does not tell (its list has two names, by age)."""
    topology = f"{CPUS}/cpu{cpu}/topology"
    listed = evidence.read(f"{topology}/core_cpus_list") or evidence.read(f"{topology}/thread_siblings_list")
    return parse_cpu_list(listed or "")


def _cores_of_cpuinfo(blocks: Sequence[Mapping[str, str]]) -> Mapping[int, object]:
    return {
        cpu: (block["physical id"], block["core id"])
        for block in blocks
        if (cpu := count(block.get("processor"))) is not None and "core id" in block and "physical id" in block
    }


def _spanned(cores: Mapping[int, object], cpus: AbstractSet[int]) -> int | None:
    """How many physical cores lie behind ``cpus``; None where one of them is unknown."""
    if not cpus or not cpus <= cores.keys():
        return None
    return len({cores[cpu] for cpu in cpus})


def cache_bytes(text: str | None) -> int | None:
    """Bytes out of what the kernel says of a cache's size, ``32768K``; None where that is no size."""
    return size((text or "").strip().replace("K", " KiB"))


def _kinds(
    evidence: Evidence, architecture: str, online: AbstractSet[int]
) -> tuple[AbstractSet[int], AbstractSet[int]]:
    """CPUs on performance and on efficiency cores; two empty sets where the kernel tells no kinds apart."""
    fast = parse_cpu_list(evidence.read("/sys/devices/cpu_core/cpus") or "") & online
    slow = parse_cpu_list(evidence.read("/sys/devices/cpu_atom/cpus") or "") & online
    slow |= parse_cpu_list(evidence.read("/sys/devices/cpu_lowpower/cpus") or "") & online
    if fast and slow:
        return fast, slow
    if not architecture.startswith(("aarch64", "arm")):
        return frozenset(), frozenset()
    found = {cpu: whole(evidence.read(f"{CPUS}/cpu{cpu}/cpu_capacity")) for cpu in sorted(online)}
    capacities = {cpu: capacity for cpu, capacity in found.items() if capacity is not None}
    if len(capacities) < len(online) or len(set(capacities.values())) < 2:
        return frozenset(), frozenset()
    least = min(capacities.values())
    return {cpu for cpu, capacity in capacities.items() if capacity > least}, {
        cpu for cpu, capacity in capacities.items() if capacity == least
    }


def _frequency(evidence: Evidence, cpus: AbstractSet[int], name: str) -> int | None:
    """Hz of the first of ``cpus``; the kernel's files hold kHz."""
    if not cpus:
        return None
    kilohertz = count(evidence.read(f"{CPUS}/cpu{min(cpus)}/cpufreq/{name}"))
    return kilohertz * 1000 if kilohertz and kilohertz < 1e9 else None

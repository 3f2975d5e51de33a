"""What the control groups above this process allow: memory and processor time, versions 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.loose import count

UNLIMITED = 2**62
"""Version 1 writes "no limit" as the largest multiple of a page below 2**63."""

DEPTH = 64
"""Levels looked at; deeper trees than this are not made by anything known."""


@frozen
class CgroupMount:
    """One mounted hierarchy; ``controllers`` is empty for version 2, ``root`` the group its mount point shows."""

    version: int
    controllers: frozenset[str]
    root: str
    point: str


@frozen
class MemoryLimit:
    """Bytes that one group allows, and what it holds against that (reclaimable file pages left out)."""

    limit: int
    used: int | None


@frozen
class CgroupLimits:
    """Limits on the way up, the nearest group first. ``quota`` is in cores' worth of time."""

    memory: tuple[MemoryLimit, ...] = ()
    quota: float | None = None

    @property
    def smallest(self) -> MemoryLimit | None:
        """The group with the smallest memory limit."""
        return min(self.memory, key=lambda each: each.limit, default=None)

    @property
    def left(self) -> int | None:
        """The fewest bytes that any group has left; None where none limits memory."""
        return min((max(0, each.limit - (each.used or 0)) for each in self.memory), default=None)


def read_cgroups(evidence: Evidence) -> CgroupLimits:
    """The limits of every group above this process. A file that is absent means no limit there."""
    membership = parse_membership(evidence.read("/proc/self/cgroup") or "")
    lines = evidence.value("cgroup mounts", cgroup_mount_lines)
    mounts = parse_mounts(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else ()
    memory = [limit for place in levels(mounts, membership, "memory") if (limit := _memory(evidence, *place))]
    quotas = [quota for place in levels(mounts, membership, "cpu") if (quota := _quota(evidence, *place))]
    return CgroupLimits(tuple(memory), min(quotas, default=None))


def cgroup_mount_lines() -> list[str]:
    """This process's control group mounts, as the kernel lists them; other mounts are nobody's business."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if " - cgroup" in line]


def parse_membership(text: str) -> Mapping[str, str]:
    """Controller to group out of ``/proc/self/cgroup``; version 2 stands under the empty name."""
    groups = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if number.isdigit() and colon and path.startswith("/"):
            groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def parse_mounts(lines: Iterable[str]) -> Sequence[CgroupMount]:
    """The hierarchies out of lines of ``/proc/self/mountinfo``."""
    mounts = []
    for line in lines:
        before, dash, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if not dash or len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        two = kind[0] == "cgroup2"
        controllers = frozenset() if two else frozenset(kind[2].split(","))
        mounts.append(CgroupMount(2 if two else 1, controllers, _unescape(fields[3]), _unescape(fields[4])))
    return mounts


def levels(mounts: Sequence[CgroupMount], membership: Mapping[str, str], controller: str) -> Iterator[tuple[int, str]]:
    """Version and directory of each group that may limit ``controller``, from this process up to the mount."""
    for mount in mounts:
        if mount.version == 1 and controller not in mount.controllers:
            continue
        path = membership.get("" if mount.version == 2 else controller)
        if path is None:
            continue
        parts = _below(mount.root, path)
        for depth in range(len(parts), -1, -1):
            yield mount.version, "/".join([mount.point.rstrip("/"), *parts[:depth]])


def _below(root: str, path: str) -> list[str]:
    """The steps from the mounted group to ours; none where ours lies outside (a namespace shows it as ``/..``)."""
    steps = [step for step in path.split("/") if step]
    shown = [step for step in root.split("/") if step]
    if steps[: len(shown)] != shown or ".." in steps:
        return []
    return steps[len(shown) :][:DEPTH]


def _memory(evidence: Evidence, version: int, place: str) -> MemoryLimit | None:
    names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
    limits = [limit for name in names if (limit := count(evidence.read(f"{place}/{name}"))) is not None]
    limit = min(limits, default=UNLIMITED)
    if limit >= UNLIMITED:
        return None
    used = count(evidence.read(f"{place}/{'memory.current' if version == 2 else 'memory.usage_in_bytes'}"))
    files = parse_file_pages(evidence.read(f"{place}/memory.stat") or "", version)
    return MemoryLimit(limit, None if used is None else max(0, used - files))


def parse_file_pages(text: str, version: int) -> int:
    """Bytes of file pages that the kernel gives up before it refuses memory, out of ``memory.stat``."""
    prefix = "" if version == 2 else "total_"
    found = dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
    return sum(count(found.get(f"{prefix}{kind}_file")) or 0 for kind in ("active", "inactive"))


def _quota(evidence: Evidence, version: int, place: str) -> float | None:
    if version == 2:
        return parse_cpu_max(evidence.read(f"{place}/cpu.max") or "")
    quota = count(evidence.read(f"{place}/cpu.cfs_quota_us"))
    period = count(evidence.read(f"{place}/cpu.cfs_period_us"))
    return quota / period if quota and period else None


def parse_cpu_max(text: str) -> float | None:
    """Cores' worth of time out of ``cpu.max`` ("200000 100000"); None for "max" and for rubbish."""
    quota, _, period = text.strip().partition(" ")
    microseconds, every = count(quota), count(period)
    return microseconds / every if microseconds and every else None


def _unescape(path: str) -> str:
    """A path of mountinfo, where a space is written as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)

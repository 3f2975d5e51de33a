"""Limits above a process, in trees of both versions built here."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware import cgroup
from velollm_core.hardware.cgroup import CgroupLimits, MemoryLimit
from velollm_core.hardware.linux_memory import limited, linux_memory, parse_meminfo
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.memory import Memory

GIB = 2**30
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"
V1_MEMORY = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
V1_CPU = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"


class Tree(LiveEvidence):
    """Files below a temporary root, with the mounts given."""

    lines: tuple[str, ...] = ()

    def value(self, name, compute):
        return list(self.lines) if name == "cgroup mounts" else compute()


@pytest.fixture
def limits(tmp_path: Path):
    def read(membership: str, mounts: tuple[str, ...], **files: str) -> CgroupLimits:
        for path, text in {"proc/self/cgroup": membership, **files}.items():
            place = tmp_path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        tree = type("Here", (Tree,), {"lines": mounts})(root=tmp_path)
        return cgroup.read_cgroups(tree)

    return read


def test_absence_is_no_limit(limits, recorded) -> None:
    membership = recorded("h100", "cgroup").splitlines()[0] + "\n"
    assert limits(membership, (V2,)) == CgroupLimits()


def test_the_smallest_limit_up_the_hierarchy_counts(limits) -> None:
    found = limits(
        "0::/a/b/c\n",
        (V2,),
        **{
            "sys/fs/cgroup/a/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/a/memory.current": f"{3 * GIB}\n",
            "sys/fs/cgroup/a/memory.stat": f"anon 1\nactive_file {GIB // 2}\ninactive_file {GIB // 2}\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/b/c/memory.max": f"{8 * GIB}\n",
            "sys/fs/cgroup/a/b/c/memory.current": f"{GIB}\n",
            "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/a/b/c/cpu.max": "max 100000\n",
        },
    )
    assert found.smallest == MemoryLimit(4 * GIB, 2 * GIB)
    assert found.left == 2 * GIB
    assert found.quota == 1.5


def test_memory_high_limits_too(limits) -> None:
    found = limits(
        "0::/a\n", (V2,), **{"sys/fs/cgroup/a/memory.max": "max\n", "sys/fs/cgroup/a/memory.high": f"{GIB}\n"}
    )
    assert found.smallest == MemoryLimit(GIB, None)
    assert found.left == GIB


def test_version_1_and_its_unlimited(limits) -> None:
    found = limits(
        "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
        (V1_MEMORY, V1_CPU),
        **{
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": f"{2 * GIB}\n",
            "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": f"{GIB}\n",
            "sys/fs/cgroup/memory/docker/abc/memory.stat": f"inactive_file 7\ntotal_inactive_file {GIB // 4}\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        },
    )
    assert found.memory == (MemoryLimit(2 * GIB, GIB - GIB // 4),)
    assert found.quota == 0.5


def test_a_mount_that_shows_the_containers_own_group(limits) -> None:
    mount = V1_MEMORY.replace(" / /sys", " /docker/abc /sys")
    found = limits("4:memory:/docker/abc\n", (mount,), **{"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{GIB}\n"})
    assert found.smallest == MemoryLimit(GIB, None)


def test_a_group_outside_the_namespace_falls_back_to_the_mount(limits) -> None:
    found = limits("0::/../../other\n", (V2,), **{"sys/fs/cgroup/memory.max": f"{GIB}\n"})
    assert found.smallest == MemoryLimit(GIB, None)


def test_a_mount_point_with_a_space(limits) -> None:
    mount = V2.replace("/sys/fs/cgroup ", "/mnt/c\\040group ")
    found = limits("0::/\n", (mount,), **{"mnt/c group/memory.max": f"{GIB}\n"})
    assert found.smallest == MemoryLimit(GIB, None)


def test_this_processs_own_mounts_can_be_read() -> None:
    for mount in cgroup.parse_mounts(cgroup.cgroup_mount_lines()):
        assert mount.version in (1, 2)
        assert mount.point.startswith("/")


@pytest.mark.parametrize("text", ["", "max", "max 100000", "0 100000", "100000", "100000 0", "x y", "1 2 3"])
def test_no_quota(text: str) -> None:
    assert cgroup.parse_cpu_max(text) is None


@given(st.text(max_size=200), st.lists(st.text(max_size=120), max_size=4))
def test_rubbish_limits_nothing_and_raises_nothing(text: str, lines: list[str]) -> None:
    membership = cgroup.parse_membership(text)
    mounts = cgroup.parse_mounts([*lines, V2, V1_CPU])
    for controller in ("memory", "cpu"):
        places = list(cgroup.levels(mounts, membership, controller))
        assert len(places) <= len(mounts) * (cgroup.DEPTH + 1)
    cgroup.parse_cpu_max(text)
    assert cgroup.parse_file_pages(text, 2) >= 0


def test_memory_of_a_real_machine(recorded) -> None:
    memory = linux_memory(recorded("h100", "meminfo"), CgroupLimits())
    assert memory == Memory(131981020 * 1024, 131470532 * 1024, 0, 0)


def test_a_numa_nodes_figures_are_not_memorys(recorded) -> None:
    assert linux_memory("Node 0 MemTotal:        4550128 kB\n", CgroupLimits()) is None


def test_an_old_kernel_has_no_available() -> None:
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 250 kB\n"
    memory = linux_memory(text, CgroupLimits())
    assert memory is not None
    assert memory.available == 400 * 1024
    assert memory.swap_total is None


def test_a_limit_cuts_what_is_available() -> None:
    memory = Memory(16 * GIB, 12 * GIB, 0, 0)
    cut = limited(memory, CgroupLimits((MemoryLimit(8 * GIB, 2 * GIB), MemoryLimit(9 * GIB, 8 * GIB))))
    assert (cut.available, cut.limit, cut.limit_used) == (GIB, 8 * GIB, 2 * GIB)
    assert limited(memory, CgroupLimits((MemoryLimit(32 * GIB, GIB),))) == memory
    over = limited(memory, CgroupLimits((MemoryLimit(GIB, 2 * GIB),)))
    assert over == evolve(memory, available=0, limit=GIB, limit_used=2 * GIB)


@given(st.text(max_size=300))
def test_meminfo_never_raises(text: str) -> None:
    parse_meminfo(text)
    memory = linux_memory(text, CgroupLimits())
    assert memory is None or 0 <= memory.available <= memory.total

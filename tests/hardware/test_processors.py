"""Processors and systems: Linux out of files, Macs out of sysctl, others by psutil."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.instructions import instruction_sets
from velollm_core.hardware.linux_cpu import CPUS, core_leaders, linux_cpu, parse_cpu_list, parse_cpuinfo
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.mac import mac_cpu, parse_sysctl
from velollm_core.hardware.platforms import parse_os_release, read_platform
from velollm_core.hardware.portable import ask_cpu, ask_memory, portable_cpu, portable_memory
from velollm_core.hardware.recording import Recording


def siblings(*groups: str) -> dict[str, str]:
    """Topology files for cores whose CPUs are listed in ``groups``."""
    return {
        f"{CPUS}/cpu{cpu}/topology/core_cpus_list": group + "\n" for group in groups for cpu in parse_cpu_list(group)
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("", set()), ("5", {5}), ("3-1", set()), ("x,2-", {}), ("0-99999999", set())],
)
def test_cpu_lists(text: str, expected: set[int]) -> None:
    assert parse_cpu_list(text) == set(expected)


def test_a_hybrid_processor_in_a_cpuset(machine, documented) -> None:
    chip = documented("cpus")["i9_13900k"]
    files = {
        "/proc/cpuinfo": chip["cpuinfo"],
        f"{CPUS}/online": "0-31\n",
        "/sys/devices/cpu_core/cpus": chip["core_cpus"],
        "/sys/devices/cpu_atom/cpus": chip["atom_cpus"],
        f"{CPUS}/cpu0/cpufreq/scaling_cur_freq": "800000\n",
        f"{CPUS}/cpu0/cpufreq/cpuinfo_max_freq": "5800000\n",
        **siblings(*(f"{cpu}-{cpu + 1}" for cpu in range(0, 16, 2)), *(str(cpu) for cpu in range(16, 32))),
    }
    cpu = linux_cpu(machine(files, {"affinity": [0, 1, 2, 3, 16, 17]}), "x86_64", None)
    assert (cpu.physical_cores, cpu.threads) == (24, 32)
    assert (cpu.performance_cores, cpu.efficiency_cores) == (8, 16)
    assert (cpu.allowed_threads, cpu.allowed_cores, cpu.allowed_performance_cores) == (6, 4, 2)
    assert cpu.usable_cores == 2
    assert (cpu.frequency_hz, cpu.max_frequency_hz) == (800_000_000, 5_800_000_000)
    assert cpu.instruction_sets == ("avx", "avx2", "avx_vnni", "f16c", "fma", "sse3", "sse4_2", "ssse3")


def test_threads_that_share_a_core_are_one_leader(machine) -> None:
    evidence = machine(siblings("0,2", "1,3"), {"affinity": [0, 1, 2, 3]})
    assert core_leaders(evidence) == [0, 1]
    assert core_leaders(machine({}, {"affinity": [4, 6]})) == [4, 6]


def test_a_machine_without_topology_files(machine) -> None:
    block = "processor\t: {}\nphysical id\t: 0\ncore id\t\t: {}\n"
    files = {"/proc/cpuinfo": "\n".join(block.format(cpu, cpu // 2) for cpu in range(4))}
    cpu = linux_cpu(machine(files, {"affinity": [0, 1]}), "x86_64", None)
    assert (cpu.physical_cores, cpu.threads, cpu.allowed_cores) == (2, 4, 1)
    assert cpu.performance_cores is None


def test_arm_cores_have_names_and_kinds(machine, documented) -> None:
    found = documented("cpus")
    files = {"/proc/cpuinfo": found["raspberry_pi_5"]["cpuinfo"], f"{CPUS}/online": "0-7"}
    files |= {f"{CPUS}/cpu{cpu}/cpu_capacity": str(each) for cpu, each in enumerate(found["rk3588"]["capacities"])}
    files |= siblings(*(str(cpu) for cpu in range(8)))
    cpu = linux_cpu(machine(files, {"affinity": list(range(8))}), "aarch64", None)
    assert cpu.model == "ARM Cortex-A76"
    assert (cpu.performance_cores, cpu.efficiency_cores) == (4, 4)
    assert cpu.instruction_sets == ("dotprod", "fp16", "neon")
    assert cpu.frequency_hz is None


def test_an_unknown_arm_core_keeps_its_numbers(machine) -> None:
    text = "processor: 0\nCPU implementer: 0x99\nCPU part: 0x123\n"
    assert linux_cpu(machine({"/proc/cpuinfo": text}), "aarch64", None).model == "implementer 0x99 part 0x123"


def test_risc_v(documented) -> None:
    block = parse_cpuinfo(documented("cpus")["riscv"]["cpuinfo"])[0]
    assert instruction_sets(block["isa"]) == ("rvv", "zfh", "zvfh")


@pytest.mark.parametrize(
    ("allowed", "fast", "quota", "expected"),
    [
        (8, None, None, 8),
        (8, None, 2.5, 2),
        (8, None, 0.5, 1),
        (12, 8, None, 8),
        (2, 2, None, 2),
        (None, None, None, 1),
    ],
)
def test_usable_cores(allowed: int | None, fast: int | None, quota: float | None, expected: int) -> None:
    cpu = Cpu(None, None, "x86_64", None, None, None, allowed, quota, fast, None, None, None, (), None, fast)
    assert cpu.usable_cores == expected


@given(st.text(max_size=400))
def test_rubbish_is_an_unknown_processor(text: str) -> None:
    paths = ("/proc/cpuinfo", f"{CPUS}/online", "/sys/devices/cpu_core/cpus", f"{CPUS}/cpu0/topology/core_cpus_list")
    files = dict.fromkeys(paths, text)
    cpu = linux_cpu(Recording({"files": files, "values": {"affinity": [0, "x", None, -1]}}), "aarch64", None)
    assert cpu.usable_cores >= 1
    assert all(name.isascii() for name in cpu.instruction_sets)


def test_this_machine_has_a_processor() -> None:
    cpu = linux_cpu(LiveEvidence(), os.uname().machine, None)
    assert cpu.allowed_threads == len(os.sched_getaffinity(0))
    assert cpu.threads is None or cpu.threads >= cpu.allowed_threads


def test_a_mac(documented) -> None:
    cpu = mac_cpu(parse_sysctl(documented("apple_m2_max")["sysctl"]), "arm64")
    assert (cpu.model, cpu.vendor) == ("Apple M2 Max", "Apple")
    assert (cpu.physical_cores, cpu.performance_cores, cpu.efficiency_cores) == (12, 8, 4)
    assert cpu.usable_cores == 8
    assert cpu.instruction_sets == ("bf16", "dotprod", "fp16", "i8mm", "neon")


@given(st.text(max_size=300))
def test_sysctl_never_raises(text: str) -> None:
    mac_cpu(parse_sysctl(text), "arm64")


def test_psutil_where_nothing_else_reads() -> None:
    recording = Recording({"values": {"psutil cpu": ask_cpu(), "psutil memory": ask_memory()}})
    cpu, memory = portable_cpu(recording, "AMD64"), portable_memory(recording)
    assert cpu.threads is not None
    assert 0 < memory.available <= memory.total
    assert portable_memory(Recording({})).total == 0
    assert portable_cpu(Recording({}), "AMD64").usable_cores == 1


def test_the_system_of_a_real_machine(recorded, machine) -> None:
    files = {
        "/etc/os-release": recorded("h100", "os"),
        "/proc/self/cgroup": "0::/\n",
        "/proc/cpuinfo": "flags\t\t: fpu hypervisor avx2\n",
    }
    platform = read_platform(
        machine(files, {"platform": {"system": "Linux", "release": "6.18.44", "machine": "x86_64"}}), {}
    )
    assert platform.distribution == "Ubuntu 24.04.3 LTS"
    assert platform.virtual_machine is True
    assert platform.container is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [({"/.dockerenv": ""}, True), ({"/proc/self/cgroup": "0::/kubepods/x\n"}, True),
     ({"/proc/self/cgroup": "0::/user.slice/user-1000.slice\n"}, False), ({"/run/systemd/container": "lxc"}, True),
     ({"/proc/self/cgroup": "0::/\n"}, None)],
)  # fmt: skip
def test_containers(machine, files: dict[str, str], expected: bool | None) -> None:
    assert read_platform(machine(files, {"platform": {"system": "Linux"}}), {}).container is expected


@pytest.mark.parametrize(
    ("files", "release", "expected"),
    [({"/proc/cpuinfo": "flags : fpu"}, "6.1", False), ({"/sys/class/dmi/id/product_name": "KVM\n"}, "6.1", True),
     ({}, "5.15.0-microsoft-standard-WSL2", True), ({}, "6.1", None)],
)  # fmt: skip
def test_virtual_machines(machine, files: dict[str, str], release: str, expected: bool | None) -> None:
    evidence = machine(files, {"platform": {"system": "Linux", "release": release}})
    assert read_platform(evidence, {}).virtual_machine is expected


def test_other_systems(machine) -> None:
    mac = read_platform(
        machine({}, {"platform": {"system": "Darwin", "distribution": "macOS 15.1"}}), {"kern.hv_vmm_present": "0"}
    )
    assert (mac.distribution, mac.virtual_machine, mac.container) == ("macOS 15.1", False, None)
    assert read_platform(machine(), {}).system == "unknown"


@given(st.text(max_size=200))
def test_os_release_never_raises(text: str) -> None:
    parse_os_release(text)

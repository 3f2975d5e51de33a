"""The operating system, and whether it runs inside a container or a virtual machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping

from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.loose import at, text
from velollm_core.hardware.machine import Platform

CONTAINERS = ("docker", "kubepods", "containerd", "libpod", "lxc", "garden", "crio")
"""Words in a control group's path that only container managers put there."""

HYPERVISORS = (
    "kvm",
    "qemu",
    "vmware",
    "virtualbox",
    "virtual machine",
    "xen",
    "bochs",
    "parallels",
    "amazon ec2",
    "google compute",
)
"""Words in the firmware's product name that only virtual machines have."""


def read_platform(evidence: Evidence, sysctl: Mapping[str, str]) -> Platform:
    """What runs here; ``sysctl`` is a Mac's, empty elsewhere."""
    found = evidence.value("platform", ask_platform)
    system = text(at(found, "system")) or "unknown"
    linux = system == "Linux"
    return Platform(
        system=system,
        release=text(at(found, "release")),
        machine=text(at(found, "machine")) or "unknown",
        distribution=_distribution(evidence) if linux else text(at(found, "distribution")),
        container=_container(evidence) if linux else None,
        virtual_machine=_virtual(evidence, text(at(found, "release")) or "") if linux else _virtual_mac(sysctl),
    )


def ask_platform() -> dict[str, str]:
    """The interpreter's own answers; none of them starts a process."""
    mac = platform.mac_ver()[0]
    windows = platform.version() if platform.system() == "Windows" else ""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "distribution": f"macOS {mac}" if mac else f"Windows {windows}" if windows else "",
    }


def _distribution(evidence: Evidence) -> str | None:
    release = evidence.read("/etc/os-release") or evidence.read("/usr/lib/os-release") or ""
    return parse_os_release(release)


def parse_os_release(document: str) -> str | None:
    """The PRETTY_NAME, which may stand in either kind of quotes."""
    for line in document.splitlines():
        if line.startswith("PRETTY_NAME="):
            return text(line.partition("=")[2].strip().strip("\"'"))
    return None


def _container(evidence: Evidence) -> bool | None:
    """True on a container's own marks, False in a session or service of the host, None where nothing tells."""
    if evidence.read("/.dockerenv") is not None or evidence.read("/run/.containerenv") is not None:
        return True
    if evidence.read("/run/systemd/container"):
        return True
    groups = (evidence.read("/proc/self/cgroup") or "").lower()
    if any(word in groups for word in CONTAINERS):
        return True
    return False if any(word in groups for word in (":/user.slice", ":/system.slice", ":/init.scope")) else None


def _virtual(evidence: Evidence, release: str) -> bool | None:
    """True where processor or firmware say so, False where an x86 processor says nothing, else None."""
    info = evidence.read("/proc/cpuinfo") or ""
    flags = next((line.partition(":")[2].split() for line in info.splitlines() if line.startswith("flags")), None)
    if (flags is not None and "hypervisor" in flags) or "microsoft" in release.lower():
        return True
    names = [evidence.read(f"/sys/class/dmi/id/{name}") or "" for name in ("sys_vendor", "product_name")]
    if any(word in name.lower() for name in names for word in HYPERVISORS):
        return True
    return False if flags is not None else None


def _virtual_mac(sysctl: Mapping[str, str]) -> bool | None:
    return {"0": False, "1": True}.get(sysctl.get("kern.hv_vmm_present", ""))

"""The processor of a Mac, out of sysctl."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.evidence import Evidence
from velollm_core.hardware.instructions import instruction_sets
from velollm_core.hardware.loose import count, text

NAMES = (
    "machdep.cpu.brand_string", "machdep.cpu.vendor", "machdep.cpu.features", "machdep.cpu.leaf7_features",
    "hw.physicalcpu", "hw.logicalcpu", "hw.nperflevels", "hw.perflevel0.physicalcpu", "hw.perflevel1.physicalcpu",
    "hw.cpufrequency", "hw.cpufrequency_max", "hw.optional.neon", "hw.optional.arm.FEAT_DotProd",
    "hw.optional.arm.FEAT_FP16", "hw.optional.arm.FEAT_BF16", "hw.optional.arm.FEAT_I8MM", "hw.optional.arm.FEAT_SME",
    "hw.optional.arm.FEAT_SME2", "kern.hv_vmm_present", "iogpu.wired_limit_mb",
)  # fmt: skip
"""All that is asked in one run; a name that a Mac does not know costs a line on its stderr and exit code 1."""


def sysctl(evidence: Evidence) -> Mapping[str, str]:
    """What sysctl knows of `NAMES`."""
    return parse_sysctl(evidence.run("sysctl", *NAMES).stdout)


def parse_sysctl(document: str) -> Mapping[str, str]:
    """Values by name out of ``name: value`` lines."""
    pairs = (line.partition(": ") for line in document.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon and name.strip() in NAMES}


def mac_cpu(found: Mapping[str, str], architecture: str) -> Cpu:
    """A Mac's processor. macOS has neither affinity nor cpusets: every core is allowed."""
    levels = count(found.get("hw.nperflevels"))
    fast = count(found.get("hw.perflevel0.physicalcpu")) if levels == 2 else None
    slow = count(found.get("hw.perflevel1.physicalcpu")) if levels == 2 else None
    cores, threads = count(found.get("hw.physicalcpu")), count(found.get("hw.logicalcpu"))
    options = [
        name.rpartition(".")[2] for name, value in found.items() if name.startswith("hw.optional.") and value == "1"
    ]
    flags = [found.get("machdep.cpu.features", ""), found.get("machdep.cpu.leaf7_features", ""), *options]
    return Cpu(
        model=text(found.get("machdep.cpu.brand_string")),
        vendor=text(found.get("machdep.cpu.vendor")) or ("Apple" if architecture == "arm64" else None),
        architecture=architecture,
        physical_cores=cores,
        threads=threads,
        allowed_threads=threads,
        allowed_cores=cores,
        quota=None,
        performance_cores=fast,
        efficiency_cores=slow,
        frequency_hz=count(found.get("hw.cpufrequency")) or None,
        max_frequency_hz=count(found.get("hw.cpufrequency_max")) or None,
        instruction_sets=instruction_sets(" ".join(flags)),
        allowed_performance_cores=fast,
    )

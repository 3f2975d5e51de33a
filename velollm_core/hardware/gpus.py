"""Every vendor's probe, side by side, each only where a device, a driver or a tool of its shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.pci import AMD, INTEL, NVIDIA, PciDevice, display_devices
from velollm_core.hardware.tools import has_tool
from velollm_core.isolation import bounded_each

SECONDS = 20.0
"""One vendor's time for all of its sources together, each of which is bounded by itself."""


def find_gpus(evidence: Evidence, system: str, memory: Memory, sysctl: Mapping[str, str]) -> Found:
    """All GPUs, NVIDIA's first; a probe that fails costs its own GPUs and a note. ``sysctl`` is a Mac's."""
    if system == "Darwin":
        from velollm_core.hardware.apple_probe import find_apple

        return find_apple(evidence, memory, sysctl)
    devices = display_devices(evidence)
    probes = {
        "NVIDIA": _nvidia(evidence, system, _of(devices, NVIDIA), memory),
        "AMD": _amd(evidence, _of(devices, AMD)),
        "Intel": _intel(evidence, _of(devices, INTEL)),
    }
    outcomes = bounded_each({vendor: probe for vendor, probe in probes.items() if probe}, SECONDS)
    found = [_found(vendor, outcome) for vendor, outcome in outcomes.items()]
    gpus = tuple(gpu for each in found for gpu in each.gpus)
    return Found(gpus, tuple(note for each in found for note in each.notes))


def _of(devices: Sequence[PciDevice], vendor: int) -> list[PciDevice]:
    return [device for device in devices if device.vendor == vendor]


def _found(vendor: str, outcome: Found | BaseException) -> Found:
    if isinstance(outcome, Found):
        return outcome
    return Found(notes=(f"{vendor} GPUs: {type(outcome).__name__}: {outcome}",))


def _nvidia(evidence: Evidence, system: str, cards: Sequence[PciDevice], memory: Memory) -> Callable[[], Found] | None:
    """Its probe, where there is a hint. Windows gives none but its libraries, so there their absence is no news."""
    hinted = bool(cards or evidence.names("/proc/driver/nvidia")) or evidence.read("/etc/nv_tegra_release") is not None
    if not hinted and system != "Windows" and not has_tool(evidence, "nvidia-smi"):
        return None

    def probe() -> Found:
        from velollm_core.hardware.nvidia_probe import find_nvidia

        found = find_nvidia(evidence, cards, memory)
        return found if found.gpus or system != "Windows" else Found()

    return probe


def _amd(evidence: Evidence, cards: Sequence[PciDevice]) -> Callable[[], Found] | None:
    if not cards and not has_tool(evidence, "amd-smi") and not has_tool(evidence, "rocm-smi"):
        return None

    def probe() -> Found:
        from velollm_core.hardware.amd_probe import find_amd

        return find_amd(evidence, cards)

    return probe


def _intel(evidence: Evidence, cards: Sequence[PciDevice]) -> Callable[[], Found] | None:
    if not cards:
        return None

    def probe() -> Found:
        from velollm_core.hardware.intel_probe import find_intel

        return find_intel(evidence, cards)

    return probe

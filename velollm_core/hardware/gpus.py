"""Every vendor's probe, side by side: which sources to ask, in which order, and what to say where none answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from attrs import evolve

from velollm_core.hardware import amd, amd_tools, intel, nvidia, nvidia_smi
from velollm_core.hardware.apple import PROFILER, parse_profiler
from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.gpu import Gpu, Vendor
from velollm_core.hardware.loose import at, count, text
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.pci import AMD, DEVICES, INTEL, NVIDIA, PciDevice, device_name, display_devices
from velollm_core.hardware.tools import has_tool
from velollm_core.isolation import bounded_each

SECONDS = 20.0
"""One vendor's time for all of its sources together, each of which is bounded by itself."""

MOST_NODES = 64


def find_gpus(evidence: Evidence, system: str, memory: Memory, sysctl: Mapping[str, str]) -> Found:
    """All GPUs, NVIDIA's first; a vendor is asked only where a device, a driver or a tool of its shows."""
    if system == "Darwin":
        return find_apple(evidence, memory, sysctl)
    devices = display_devices(evidence)
    probes: dict[str, Callable[[], Found]] = {
        "NVIDIA": lambda: find_nvidia(evidence, system, devices, memory),
        "AMD": lambda: find_amd(evidence, devices),
        "Intel": lambda: find_intel(evidence, devices),
    }
    outcomes = bounded_each(probes, SECONDS)
    found = [_found(vendor, outcome) for vendor, outcome in outcomes.items()]
    return Found(
        tuple(gpu for each in found for gpu in each.gpus), tuple(note for each in found for note in each.notes)
    )


def _found(vendor: str, outcome: Found | BaseException) -> Found:
    return (
        outcome if isinstance(outcome, Found) else Found(notes=(f"{vendor} GPUs: {type(outcome).__name__}: {outcome}",))
    )


def find_nvidia(evidence: Evidence, system: str, devices: Sequence[PciDevice], memory: Memory) -> Found:
    """By NVML, else by nvidia-smi; a card that neither sees is shown as its PCI device, without a driver."""
    cards = [device for device in devices if device.vendor == NVIDIA]
    driver_here = bool(evidence.names("/proc/driver/nvidia")) or system == "Windows" or _tegra(evidence)
    if not cards and not driver_here and not has_tool(evidence, "nvidia-smi"):
        return Found()
    from velollm_core.hardware.nvml import ask_nvml

    answers = evidence.value("nvml", ask_nvml)
    found = nvidia.parse_nvml(answers, memory)
    if not found.gpus:
        found = _nvidia_smi(evidence, text(at(answers, "error")))
    if not found.gpus and not cards and system == "Windows":
        return Found()  # no hint beside the system's name: that there is nothing is no news
    value, order = (text_or_none(evidence, name) for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"))
    gpus = nvidia.mark_visible(found.gpus, value)
    notes = (*found.notes, *nvidia.visibility_notes(gpus, value, order))
    unseen = _without_driver(cards, gpus, "nvidia")
    return Found((*gpus, *unseen), (*notes, *(_unseen_note(card) for card in unseen)))


def _nvidia_smi(evidence: Evidence, reason: str | None) -> Found:
    notes = [reason] if reason else []
    run = evidence.run(*nvidia_smi.XML)
    found = nvidia_smi.parse_xml(run.stdout)
    if not found.gpus:
        notes += [note for note in (run.complaint, *found.notes) if note]
        if run.error is not None:
            return Found(notes=tuple(notes))  # missing or hanging: it would be so again
        run = evidence.run(*nvidia_smi.CSV)
        found = nvidia_smi.parse_csv(run.stdout if run.exit_code == 0 else "")
        notes += [run.complaint] if run.complaint else []
    return Found(found.gpus, tuple(notes))


def find_amd(evidence: Evidence, devices: Sequence[PciDevice]) -> Found:
    """By the kernel's files, completed by amd-smi, else by rocm-smi."""
    cards = [device for device in devices if device.vendor == AMD]
    tools = [name for name in ("amd-smi", "rocm-smi") if has_tool(evidence, name)]
    if not cards and not tools:
        return Found()
    nodes = _kfd_nodes(evidence) if cards else []
    by_address = {node.address: node for node in nodes}
    files = {card.address: _files(evidence, card, amd.FILES, "power1_cap") for card in cards}
    gpus: Sequence[Gpu] = [
        amd.amd_gpu(index, card, files[card.address], by_address.get(card.address)) for index, card in enumerate(cards)
    ]
    described, notes = _amd_tools(evidence, tools)
    clocks = {address: amd.parse_memory_clocks(found.get("pp_dpm_mclk") or "") for address, found in files.items()}
    gpus = _named(evidence, amd_tools.add_cards(gpus, described, clocks), cards)
    runtime = text(evidence.read("/opt/rocm/.info/version"))
    gpus = [_with_runtime(gpu, f"ROCm {runtime}" if runtime else None) for gpu in gpus]
    hip = next(
        (
            value
            for name in ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
            if (value := text_or_none(evidence, name)) is not None
        ),
        None,
    )
    return Found(amd.mark_visible(gpus, nodes, text_or_none(evidence, "ROCR_VISIBLE_DEVICES"), hip), notes)


def _amd_tools(evidence: Evidence, tools: Sequence[str]) -> tuple[Sequence[amd_tools.AmdCard], tuple[str, ...]]:
    notes: list[str] = []
    readers = {
        "amd-smi": (amd_tools.AMD_SMI, amd_tools.parse_amd_smi),
        "rocm-smi": (amd_tools.ROCM_SMI, amd_tools.parse_rocm_smi),
    }
    for name in tools:
        argv, parse = readers[name]
        run = evidence.run(*argv)
        if cards := parse(run.stdout):
            return cards, tuple(notes)
        notes.append(run.complaint or f"{name}: printed no JSON with a card in it")
    return (), tuple(notes)


def find_intel(evidence: Evidence, devices: Sequence[PciDevice]) -> Found:
    """By the kernel's files; Intel's own tools need rights that a user seldom has."""
    cards = [device for device in devices if device.vendor == INTEL]
    names = (*intel.MEMORY_FILES, intel.AVAILABLE_FILE)
    gpus = [
        intel.intel_gpu(index, card, device_name(evidence, card), _files(evidence, card, names, "power1_max"))
        for index, card in enumerate(cards)
    ]
    notes = [
        f"Intel GPU {gpu.index}: its driver does not tell how much memory it has"
        for gpu in gpus
        if gpu.memory_total is None and not gpu.unified
    ]
    return Found(tuple(gpus), tuple(notes))


def find_apple(evidence: Evidence, memory: Memory, sysctl: Mapping[str, str]) -> Found:
    """By system_profiler; the working set by Metal, else by the limit that somebody set."""
    from velollm_core.hardware.metal import ask_metal

    run = evidence.run(*PROFILER)
    metal = evidence.value("metal", ask_metal)
    wired = count(sysctl.get("iogpu.wired_limit_mb"))
    gpus = parse_profiler(run.stdout, memory, wired * 2**20 if wired else None, metal)
    notes = [run.complaint or "system_profiler: printed no GPU"] if not gpus else []
    if any(gpu.unified and gpu.memory_total is None for gpu in gpus):
        notes.append(
            f"Metal: working set unknown ({text(at(metal, 'error')) or 'no answer'}), iogpu.wired_limit_mb not set"
        )
    return Found(tuple(gpus), tuple(notes))


def text_or_none(evidence: Evidence, variable: str) -> str | None:
    """An environment variable as it is: empty and unset are two things."""
    value = evidence.value(f"environment {variable}", lambda: os.environ.get(variable))
    return value if isinstance(value, str) else None


def _tegra(evidence: Evidence) -> bool:
    return evidence.read("/etc/nv_tegra_release") is not None


def _kfd_nodes(evidence: Evidence) -> list[amd.KfdNode]:
    root = "/sys/class/kfd/kfd/topology/nodes"
    names = sorted(evidence.names(root)[:MOST_NODES], key=lambda name: count(name) or 0)
    nodes = [amd.parse_kfd(evidence.read(f"{root}/{name}/properties") or "") for name in names]
    return [node for node in nodes if node is not None]


def _files(evidence: Evidence, card: PciDevice, names: Sequence[str], power: str) -> dict[str, str | None]:
    """A card's files by name, with power limit (µW) and temperature (thousandths of °C) of its first hwmon."""
    place = f"{DEVICES}/{card.address}"
    files = {name: evidence.read(f"{place}/{name}") for name in names}
    for monitor in evidence.names(f"{place}/hwmon")[:1]:
        files["power"] = evidence.read(f"{place}/hwmon/{monitor}/{power}")
        files["temperature"] = evidence.read(f"{place}/hwmon/{monitor}/temp1_input")
    return files


def _named(evidence: Evidence, gpus: Sequence[Gpu], cards: Sequence[PciDevice]) -> list[Gpu]:
    by_address = {card.address: card for card in cards}
    return [
        evolve(gpu, name=device_name(evidence, card))
        if gpu.name is None and (card := by_address.get(gpu.pci_bus_id or ""))
        else gpu
        for gpu in gpus
    ]


def _with_runtime(gpu: Gpu, runtime: str | None) -> Gpu:
    return evolve(gpu, runtime=runtime)


def _without_driver(cards: Sequence[PciDevice], gpus: Sequence[Gpu], vendor: Vendor) -> list[Gpu]:
    """Devices on the bus that the driver's tools do not list: no driver, or one that gives them to somebody else."""
    listed = {gpu.pci_bus_id for gpu in gpus}
    unseen = [card for card in cards if card.address not in listed]
    first = max((gpu.index for gpu in gpus), default=-1) + 1
    return [
        Gpu(
            first + number,
            vendor,
            None,
            pci_bus_id=card.address,
            pci_device_id=card.identifier,
            driver=card.driver,
            visible=False,
        )
        for number, card in enumerate(unseen)
    ]


def _unseen_note(gpu: Gpu) -> str:
    subject = f"NVIDIA device {gpu.pci_device_id} at {gpu.pci_bus_id}"
    return f"{subject}: bound to {gpu.driver or 'no driver'}, not seen by NVML or nvidia-smi"

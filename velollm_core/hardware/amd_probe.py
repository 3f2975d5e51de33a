"""AMD's GPUs: by the kernel's files, completed by amd-smi, else by rocm-smi."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from velollm_core.hardware import amd, amd_tools
from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.loose import count, text
from velollm_core.hardware.pci import PciDevice, card_files, device_name
from velollm_core.hardware.tools import environment, has_tool

MOST_NODES = 64


def find_amd(evidence: Evidence, cards: Sequence[PciDevice]) -> Found:
    """The GPUs among ``cards``, or those that the tools alone know of where there is no sysfs."""
    nodes = _kfd_nodes(evidence) if cards else []
    by_address = {node.address: node for node in nodes}
    files = {card.address: card_files(evidence, card, amd.FILES, "power1_cap") for card in cards}
    gpus = [
        amd.amd_gpu(index, card, files[card.address], by_address.get(card.address)) for index, card in enumerate(cards)
    ]
    described, notes = _amd_tools(evidence)
    clocks = {address: amd.parse_memory_clocks(found.get("pp_dpm_mclk") or "") for address, found in files.items()}
    named = _named(evidence, amd_tools.add_cards(gpus, described, clocks), cards)
    version = text(evidence.read("/opt/rocm/.info/version"))
    runtime = f"ROCm {version}" if version else None
    hip = environment(evidence, "HIP_VISIBLE_DEVICES")
    hip = environment(evidence, "CUDA_VISIBLE_DEVICES") if hip is None else hip
    seen = amd.mark_visible(named, nodes, environment(evidence, "ROCR_VISIBLE_DEVICES"), hip)
    return Found(tuple(evolve(gpu, runtime=runtime) for gpu in seen), notes)


def _amd_tools(evidence: Evidence) -> tuple[Sequence[amd_tools.AmdCard], tuple[str, ...]]:
    notes: list[str] = []
    readers = {
        "amd-smi": (amd_tools.AMD_SMI, amd_tools.parse_amd_smi),
        "rocm-smi": (amd_tools.ROCM_SMI, amd_tools.parse_rocm_smi),
    }
    for name, (argv, parse) in readers.items():
        if not has_tool(evidence, name):
            continue
        run = evidence.run(*argv)
        if cards := parse(run.stdout):
            return cards, tuple(notes)
        notes.append(run.complaint or f"{name}: printed no JSON with a card in it")
    return (), tuple(notes)


def _kfd_nodes(evidence: Evidence) -> list[amd.KfdNode]:
    root = "/sys/class/kfd/kfd/topology/nodes"
    names = sorted(evidence.names(root)[:MOST_NODES], key=lambda name: count(name) or 0)
    nodes = [amd.parse_kfd(evidence.read(f"{root}/{name}/properties") or "") for name in names]
    return [node for node in nodes if node is not None]


def _named(evidence: Evidence, gpus: Sequence[Gpu], cards: Sequence[PciDevice]) -> list[Gpu]:
    by_address = {card.address: card for card in cards}
    return [
        evolve(gpu, name=device_name(evidence, card))
        if gpu.name is None and (card := by_address.get(gpu.pci_bus_id or ""))
        else gpu
        for gpu in gpus
    ]

"""NVIDIA's GPUs: by NVML, else by nvidia-smi, else as devices without a driver."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.hardware import nvidia, nvidia_smi
from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.loose import at, text
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.nvml import ask_nvml
from velollm_core.hardware.pci import PciDevice
from velollm_core.hardware.tools import environment


def find_nvidia(evidence: Evidence, cards: Sequence[PciDevice], memory: Memory) -> Found:
    """The GPUs that a driver tells of, then the ``cards`` that none does; unified GPUs share ``memory``."""
    answers = evidence.value("nvml", ask_nvml)
    found = nvidia.parse_nvml(answers, memory)
    if not found.gpus:
        found = _nvidia_smi(evidence, text(at(answers, "error")))
    value, order = environment(evidence, "CUDA_VISIBLE_DEVICES"), environment(evidence, "CUDA_DEVICE_ORDER")
    gpus = nvidia.mark_visible(found.gpus, value)
    notes = (*found.notes, *nvidia.visibility_notes(gpus, value, order))
    unseen = _without_driver(cards, gpus)
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


def _without_driver(cards: Sequence[PciDevice], gpus: Sequence[Gpu]) -> list[Gpu]:
    """Devices on the bus that the driver's tools do not list: no driver, or one that gives them to somebody else."""
    listed = {gpu.pci_bus_id for gpu in gpus}
    unseen = [card for card in cards if card.address not in listed]
    first = max((gpu.index for gpu in gpus), default=-1) + 1
    return [
        Gpu(
            first + number,
            "nvidia",
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

"""Intel's GPUs, by the kernel's files: Intel's own tools need rights that a user seldom has."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.hardware import intel
from velollm_core.hardware.evidence import Evidence, Found
from velollm_core.hardware.pci import PciDevice, card_files, device_name


def find_intel(evidence: Evidence, cards: Sequence[PciDevice]) -> Found:
    """The GPUs among ``cards``, with a note for each whose memory nobody tells."""
    names = (*intel.MEMORY_FILES, intel.AVAILABLE_FILE)
    gpus = [
        intel.intel_gpu(index, card, device_name(evidence, card), card_files(evidence, card, names, "power1_max"))
        for index, card in enumerate(cards)
    ]
    silent = [gpu.index for gpu in gpus if gpu.memory_total is None and not gpu.unified]
    return Found(
        tuple(gpus), tuple(f"Intel GPU {index}: its driver does not tell how much memory it has" for index in silent)
    )

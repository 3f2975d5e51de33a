"""GPUs of a Mac out of system_profiler's JSON, sysctl and Metal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from velollm_core.hardware.gpu import Gpu, Vendor
from velollm_core.hardware.loose import at, count, items, parse_json, size, text
from velollm_core.hardware.memory import Memory

PROFILER = ("system_profiler", "SPDisplaysDataType", "-json")
VENDORS: Mapping[str, Vendor] = {"apple": "apple", "amd": "amd", "ati": "amd", "nvidia": "nvidia", "intel": "intel"}


def parse_profiler(document: str, memory: Memory, wired_limit: int | None, metal: object) -> Sequence[Gpu]:
    """The GPUs of ``system_profiler SPDisplaysDataType -json``.

    A unified GPU's ``memory_total`` is the working set that Metal recommends (``metal``, `metal.ask_metal`'s answer),
    else ``wired_limit`` in bytes (``iogpu.wired_limit_mb``, 0 or None where nobody set it), else unknown: the share
    that macOS grants by itself is documented nowhere. What is free of it is bounded by free main memory too.
    """
    found = parse_json(document)
    gpus: list[Gpu] = []
    for entry in items(at(found, "SPDisplaysDataType"), 16):
        vendor = _vendor(entry)
        if vendor is not None:
            number = sum(gpu.vendor == vendor for gpu in gpus)
            gpus.append(_gpu(number, vendor, entry, memory, count(at(metal, "working_set")) or wired_limit or None))
    return gpus


def _gpu(index: int, vendor: Vendor, entry: object, memory: Memory, working_set: int | None) -> Gpu:
    unified = vendor == "apple"
    total = working_set if unified else size(at(entry, "spdisplays_vram"))
    return Gpu(
        index=index,
        vendor=vendor,
        name=text(at(entry, "sppci_model")) or text(at(entry, "_name")),
        runtime=_metal_version(text(at(entry, "spdisplays_mtlgpufamilysupport"))),
        memory_total=total,
        memory_free=min(total, memory.available) if unified and total is not None else None,
        unified=unified or vendor == "intel",
        multiprocessors=count(at(entry, "sppci_cores")),
    )


def _vendor(entry: object) -> Vendor | None:
    """Out of ``sppci_vendor_Apple``, or ``AMD (0x1002)``; a vendor not known here has no place in a plan."""
    words = (text(at(entry, "spdisplays_vendor")) or "").lower().replace("sppci_vendor_", "").split()
    return VENDORS.get(words[0]) if words else None


def _metal_version(family: str | None) -> str | None:
    """``Metal 3`` out of ``spdisplays_metal3``."""
    _, found, version = (family or "").partition("spdisplays_metal")
    return f"Metal {version}".strip() if found and len(version) <= 3 else None

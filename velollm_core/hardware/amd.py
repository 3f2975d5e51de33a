"""AMD GPUs out of the kernel's own files: amdgpu's memory figures and the KFD's topology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from velollm_core.figures import Rate
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.loose import count, text
from velollm_core.hardware.pci import PciDevice
from velollm_core.hardware.visible import visible_positions

FILES = (
    "mem_info_vram_total", "mem_info_vram_used", "mem_info_gtt_total", "mem_info_gtt_used",
    "product_name", "unique_id", "pp_dpm_mclk",
)  # fmt: skip
"""What amdgpu offers of a card, beside its PCI files."""

SHARED_MEMORY = {
    "gfx902", "gfx909", "gfx90c", "gfx1013", "gfx1033", "gfx1035", "gfx1036", "gfx1037",
    "gfx1103", "gfx1150", "gfx1151", "gfx1152", "gfx1153",
}  # fmt: skip
"""Targets that LLVM's AMDGPU guide lists as APUs: their GPU uses main memory beyond a small carve-out."""

TRANSFERS = {
    "HBM": 2, "HBM2": 2, "HBM2E": 2, "DDR3": 2, "DDR4": 2, "LPDDR4": 2,
    "GDDR5": 4, "DDR5": 4, "LPDDR5": 4, "GDDR6": 16,
}  # fmt: skip
"""Transfers a clock as amdgpu counts memory clocks, by type of memory; other types are not known."""


@frozen
class KfdNode:
    """One GPU of the compute driver's topology, in the order ROCm counts in; ``unique_id`` is 0 where it has none."""

    address: str
    target: str | None
    compute_units: int | None
    unique_id: int

    @property
    def uuid(self) -> str | None:
        """As rocminfo prints it and ``ROCR_VISIBLE_DEVICES`` takes it."""
        return f"GPU-{self.unique_id:016x}" if self.unique_id else None


def parse_kfd(properties: str) -> KfdNode | None:
    """A GPU out of a topology node's ``properties``; None for a processor's node, or one that may not be read."""
    pairs = dict(pair for line in properties.splitlines() if len(pair := line.split()) == 2)
    found = {name: number for name, value in pairs.items() if (number := count(value)) is not None}
    unique = pairs.get("unique_id", "0")  # uses all 64 bits, more than `count` passes
    simds, each = found.get("simd_count", 0), found.get("simd_per_cu", 0)
    location, domain = found.get("location_id"), found.get("domain", 0)
    if not simds or location is None or location > 0xFFFF or domain > 0xFFFF:
        return None
    address = f"{domain:04x}:{location >> 8:02x}:{location >> 3 & 0x1F:02x}.{location & 7}"
    identifier = int(unique) if unique.isascii() and unique.isdecimal() and len(unique) <= 20 else 0
    return KfdNode(address, _target(found.get("gfx_target_version")), simds // each if each else None, identifier)


def _target(version: int | None) -> str | None:
    """``gfx1100`` out of 110000, ``gfx90a`` out of 90010: stepping and minor number are one hexadecimal digit each."""
    if not version:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def parse_memory_clocks(levels: str) -> int | None:
    """The highest MHz in ``pp_dpm_mclk`` ("0: 96Mhz *")."""
    found = []
    for line in levels.splitlines()[:64]:
        _, colon, level = line.partition(":")
        clock = count(level.lower().partition("mhz")[0].strip())
        if colon and clock:
            found.append(clock)
    return max(found, default=None)


def nominal_bandwidth(kind: str | None, bits: int | None, megahertz: int | None) -> Rate | None:
    """Bytes a second of a memory of this type; None unless type, width and clock are all known."""
    transfers = TRANSFERS.get((kind or "").upper())
    if not transfers or not bits or not megahertz or bits > 10**6 or megahertz > 10**6:
        return None
    return Rate(megahertz * 1e6 * transfers * bits / 8, "nominal")


def amd_gpu(index: int, device: PciDevice, files: Mapping[str, str | None], node: KfdNode | None) -> Gpu:
    """One card out of its ``files`` (`FILES`, and ``power`` and ``temperature`` of its hwmon) and its KFD ``node``."""
    unified = node is not None and node.target in SHARED_MEMORY
    total, used = count(files.get("mem_info_vram_total")), count(files.get("mem_info_vram_used"))
    if unified and total is not None and (shared := count(files.get("mem_info_gtt_total"))) is not None:
        total += shared
        used = None if used is None else used + (count(files.get("mem_info_gtt_used")) or 0)
    unique = (files.get("unique_id") or "").strip().lower().removeprefix("0x")
    power, temperature = count(files.get("power")), count(files.get("temperature"))
    return Gpu(
        index=index,
        vendor="amd",
        name=text(files.get("product_name")),
        uuid=(node.uuid if node else None) or (text(f"GPU-{unique}") if unique else None),
        pci_bus_id=device.address,
        pci_device_id=device.identifier,
        driver=device.driver,
        compute_capability=node.target if node else None,
        memory_total=total,
        memory_used=used,
        memory_free=max(0, total - used) if total is not None and used is not None else None,
        unified=unified,
        power_limit_watts=power / 1e6 if power else None,
        temperature_celsius=temperature // 1000 if temperature else None,
        multiprocessors=node.compute_units if node else None,
        visible=device.driver == "amdgpu",
    )


def mark_visible(gpus: Sequence[Gpu], nodes: Sequence[KfdNode], rocr: str | None, hip: str | None) -> tuple[Gpu, ...]:
    """``gpus`` with ``visible`` as a ROCm program has it: ``ROCR_VISIBLE_DEVICES``, then HIP's in what is left."""
    order = [node for node in nodes if any(gpu.pci_bus_id == node.address for gpu in gpus)]
    if not order:
        return tuple(gpus)
    runtime = [order[position] for position in visible_positions(rocr, [node.uuid for node in order])]
    seen = [runtime[position] for position in visible_positions(hip, [node.uuid for node in runtime])]
    shown, known = {node.address for node in seen}, {node.address for node in order}
    return tuple(
        evolve(gpu, visible=gpu.visible and gpu.pci_bus_id in shown) if gpu.pci_bus_id in known else gpu for gpu in gpus
    )

"""Intel GPUs out of sysfs."""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.loose import count
from velollm_core.hardware.pci import PciDevice

MEMORY_FILES = ("lmem_total_bytes", "tile0/physical_vram_size_bytes", "tile1/physical_vram_size_bytes")
"""Local memory where a driver tells it: i915's, or one file a tile of xe's. Mainline drivers often tell nothing."""

AVAILABLE_FILE = "lmem_avail_bytes"

INTEGRATED_ADDRESS = "0000:00:02.0"
"""Intel's processors have carried their graphics at this address since there has been any."""


def intel_gpu(index: int, device: PciDevice, name: str | None, files: Mapping[str, str | None]) -> Gpu:
    """One GPU out of its ``files``: `MEMORY_FILES`, `AVAILABLE_FILE`, ``power`` and ``temperature`` of its hwmon."""
    unified = device.address == INTEGRATED_ADDRESS
    sizes = [size for file in MEMORY_FILES if (size := count(files.get(file)))]
    total = None if unified else sum(sizes) or None
    free = count(files.get(AVAILABLE_FILE)) if total is not None else None
    power, temperature = count(files.get("power")), count(files.get("temperature"))
    return Gpu(
        index=index,
        vendor="intel",
        name=name,
        pci_bus_id=device.address,
        pci_device_id=device.identifier,
        driver=device.driver,
        memory_total=total,
        memory_free=free,
        memory_used=max(0, total - free) if total is not None and free is not None else None,
        unified=unified,
        power_limit_watts=power / 1e6 if power else None,
        temperature_celsius=temperature // 1000 if temperature else None,
        visible=device.driver in ("i915", "xe"),
    )

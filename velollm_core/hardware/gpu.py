"""One accelerator, of any vendor."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.figures import Rate

Vendor = Literal["nvidia", "amd", "apple", "intel"]


@frozen
class GpuProcess:
    """A process that holds memory on a GPU; ``memory`` in bytes, None where the driver does not say."""

    pid: int
    name: str | None
    memory: int | None


@frozen
class Gpu:
    """One GPU (or MIG instance). Bytes are integers; ``None`` means that nothing on this machine says.

    ``index`` counts as the vendor's own tool does, MIG instances after all whole GPUs; vendor and index are unique.
    ``unified`` marks a GPU that shares main memory; its ``memory_total`` is then the working-set limit of the system.
    ``memory_reserved`` is what the driver keeps for itself, neither used nor free; ``memory_used`` includes it only
    where it is None. ``bandwidth`` is in bytes a second. ``pci_bus_id`` reads as in sysfs, ``0000:00:06.0``,
    ``pci_device_id`` as ``10de:2330``, ``compute_capability`` is AMD's ``gfx1100`` too, ``runtime`` ``CUDA 13.0``.
    ``mig`` is True for a GPU cut into instances and for each instance; ``parent`` is the index of an instance's GPU.
    ``visible`` is False where a program would not see it: hidden by ``CUDA_VISIBLE_DEVICES`` (or the vendor's like),
    without a driver, or cut into instances, which are seen in its place.
    """

    index: int
    vendor: Vendor
    name: str | None
    uuid: str | None = None
    pci_bus_id: str | None = None
    pci_device_id: str | None = None
    driver: str | None = None
    runtime: str | None = None
    compute_capability: str | None = None
    memory_total: int | None = None
    memory_free: int | None = None
    memory_used: int | None = None
    memory_reserved: int | None = None
    unified: bool = False
    bandwidth: Rate | None = None
    power_limit_watts: float | None = None
    temperature_celsius: int | None = None
    clock_event_reasons: int | None = None
    mig: bool | None = None
    multiprocessors: int | None = None
    processes: tuple[GpuProcess, ...] = ()
    visible: bool = True
    parent: int | None = None

"""The places that can hold a model, and what each has free now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.figures import Bytes, Interval, Rate
from velollm_core.hardware.gpu import Gpu, Vendor
from velollm_core.models.peak import cpu_peak, gpu_peak

if TYPE_CHECKING:
    from velollm_core.hardware.machine import Hardware

HOST = "host"
MIB = 1 << 20

# What driver, context and libraries take on a device before the first tensor. Seen: 451–456 MiB (RTX 4090),
# 749 MiB (RTX PRO 6000), 620–660 MiB (H100), about 400 MiB a process under ROCm. The rest of the spread is prudence.
_OVERHEAD: dict[Vendor, tuple[int, int, int]] = {
    "nvidia": (550, 350, 1000),
    "amd": (450, 300, 800),
    "intel": (400, 150, 800),
    "apple": (150, 50, 400),
}
# The engine's own process: code, tokenizer, HTTP server, graph metadata.
_HOST_OVERHEAD = (100, 40, 250)


@frozen
class Device:
    """One place that can hold a part of a model.

    ``name`` is ``host`` or ``gpu0``, ``gpu1``, … in the order programs see the GPUs. ``free`` is in bytes now, None
    where nothing says; ``reason`` says where it comes from. A ``shared`` GPU takes its memory from the host's.
    ``overhead`` is what it costs to use the device at all. ``bandwidth`` is in bytes a second, ``flops`` in dense
    16-bit operations a second. ``gpu`` is None for the host.
    """

    name: str
    title: str
    free: int | None
    reason: str
    overhead: Bytes
    bandwidth: Rate | None = None
    flops: Rate | None = None
    shared: bool = False
    gpu: Gpu | None = None


def devices(hardware: Hardware) -> tuple[Device, ...]:
    """The host, then every GPU that a program started here would see."""
    gpus = hardware.visible_gpus
    return (_host(hardware), *(_gpu(f"gpu{order}", gpu, hardware) for order, gpu in enumerate(gpus)))


def _host(hardware: Hardware) -> Device:
    memory = hardware.memory
    reason = "main memory available now"
    if memory.limit is not None:
        reason += f", under a container limit of {_gib(memory.limit)}"
    return Device(
        name=HOST,
        title=hardware.cpu.model or hardware.cpu.architecture,
        free=memory.available,
        reason=reason,
        overhead=_bytes(_HOST_OVERHEAD),
        bandwidth=hardware.cpu.bandwidth,
        flops=cpu_peak(hardware.cpu),
    )


def _gpu(name: str, gpu: Gpu, hardware: Hardware) -> Device:
    free, reason = _free(gpu, hardware)
    return Device(
        name=name,
        title=gpu.name or f"{gpu.vendor} GPU",
        free=free,
        reason=reason,
        overhead=_bytes(_OVERHEAD[gpu.vendor]),
        bandwidth=gpu.bandwidth or (hardware.cpu.bandwidth if gpu.unified else None),
        flops=gpu_peak(gpu),
        shared=gpu.unified,
        gpu=gpu,
    )


def _free(gpu: Gpu, hardware: Hardware) -> tuple[int | None, str]:
    if gpu.unified:
        available = hardware.memory.available
        limit = gpu.memory_free if gpu.memory_free is not None else gpu.memory_total
        if limit is None:
            return available, "shares main memory; its own limit is unknown"
        return min(available, limit), "shares main memory, up to its working-set limit"
    if gpu.memory_free is None:
        return None, "the driver does not say what is free"
    others = sum(process.memory or 0 for process in gpu.processes)
    held = f"; {len(gpu.processes)} other processes hold {_gib(others)}" if others else ""
    return gpu.memory_free, f"free on the device now{held}"


def _bytes(mebibytes: tuple[int, int, int]) -> Bytes:
    value, low, high = (count * MIB for count in mebibytes)
    return Bytes(value, "nominal", Interval(low, high))


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"

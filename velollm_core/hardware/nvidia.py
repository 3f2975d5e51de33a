"""NVIDIA GPUs out of NVML's answers."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from velollm_core.figures import Rate
from velollm_core.hardware.evidence import Found
from velollm_core.hardware.gpu import Gpu, GpuProcess
from velollm_core.hardware.loose import at, count, items, text
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.visible import visible_positions

INTEGRATED = {"5.3", "6.2", "7.2", "8.7", "10.1", "11.0", "12.1"}
"""Compute capabilities of chips whose GPU shares the processor's memory: Tegra to Thor, and GB10."""

CORES = {
    "3": 192,
    "5": 128,
    "6.0": 64,
    "6": 128,
    "7": 64,
    "8.0": 64,
    "8": 128,
    "9": 128,
    "10": 128,
    "11": 128,
    "12": 128,
}
"""CUDA cores a multiprocessor has, by compute capability or its major number (CUDA programming guide)."""

UNLIKE_ORDER = (
    "CUDA_VISIBLE_DEVICES counts unlike GPUs fastest first, which may differ from the order shown; "
    "CUDA_DEVICE_ORDER=PCI_BUS_ID makes them agree"
)

UNSAID = 2**62
"""Memory of a process where the driver does not say, as on Windows: NVML writes the largest 64-bit number."""


def parse_nvml(answers: object, memory: Memory | None = None) -> Found:
    """The GPUs in NVML's ``answers``, as `nvml.ask_nvml` writes them; ``memory`` is what unified GPUs share."""
    driver, runtime = text(at(answers, "driver")), cuda_version(at(answers, "cuda"))
    whole_gpus: list[Gpu] = []
    cut: list[Gpu] = []
    notes: list[str] = []
    for index, device in enumerate(items(at(answers, "devices"))):
        if complaint := text(at(device, "error")):
            notes.append(f"NVIDIA GPU {index}: {complaint}")
            continue
        gpu = evolve(_gpu(index, device, memory), driver=driver, runtime=runtime)
        whole_gpus.append(gpu)
        cut += [_instance(gpu, instance) for instance in items(at(device, "instances"))]
    first = max((gpu.index for gpu in whole_gpus), default=-1) + 1
    return Found((*whole_gpus, *(evolve(gpu, index=first + number) for number, gpu in enumerate(cut))), tuple(notes))


def cuda_version(value: object) -> str | None:
    """``CUDA 13.0`` out of 13000."""
    number = count(value)
    return f"CUDA {number // 1000}.{number % 1000 // 10}" if number else None


def nominal_bandwidth(megahertz: object, bits: object) -> Rate | None:
    """Bytes a second of a memory at ``megahertz`` over ``bits`` of bus: two transfers a clock, as NVML counts."""
    clock, width = count(megahertz), count(bits)
    if not clock or not width or clock > 10**6 or width > 10**6:
        return None
    return Rate(clock * 1e6 * 2 * width / 8, "nominal")


def bus_id(value: object) -> str | None:
    """A PCI address as sysfs writes it, ``0000:00:06.0``; NVIDIA's tools write eight digits of domain, in capitals."""
    address = (text(value) or "").lower()
    domain, colon, rest = address.partition(":")
    return f"{domain[-4:]:0>4}:{rest}" if colon and rest else None


def processes(lists: Sequence[object]) -> tuple[GpuProcess, ...]:
    """Processes out of NVML's lists, each once (a program may both compute and draw); names without their folder."""
    found: dict[int, GpuProcess] = {}
    for entry in (entry for each in lists for entry in items(each)):
        pid = count(at(entry, "pid"))
        if pid is not None and pid not in found:
            name = text(at(entry, "name"))
            found[pid] = GpuProcess(pid, base_name(name), _memory_of(entry))
    return tuple(found.values())


def base_name(path: str | None) -> str | None:
    """A program's name without the folder it lies in, and without the options some drivers print after it."""
    program = (path or "").split(" -", 1)[0].strip()
    return program.replace("\\", "/").rpartition("/")[2] or None


def mark_visible(gpus: Sequence[Gpu], value: str | None) -> tuple[Gpu, ...]:
    """``gpus`` with ``visible`` as CUDA would have it under ``CUDA_VISIBLE_DEVICES=value`` (None: not set).

    A program sees one MIG instance, the first it may see, and no whole GPU beside it (NVIDIA's MIG guide, drivers up
    to R580 at least). A GPU cut into instances is never seen itself; a number in the variable stands for its first.
    """
    by_number = [gpu for gpu in gpus if gpu.parent is None]
    named = value is not None and value.strip()[:1].isalpha()
    pool = list(gpus) if named else by_number
    seen = [pool[position] for position in visible_positions(value, [gpu.uuid for gpu in pool])]
    expanded = [
        one for gpu in seen for one in (_first_instance(gpu, gpus) if gpu.parent is None and gpu.mig else [gpu])
    ]
    instances = [gpu for gpu in expanded if gpu.parent is not None][:1]
    shown = {gpu.index for gpu in instances or expanded}
    return tuple(evolve(gpu, visible=gpu.index in shown) for gpu in gpus)


def visibility_notes(gpus: Sequence[Gpu], value: str | None, order: str | None) -> tuple[str, ...]:
    """What cannot be known of the order that numbers in ``CUDA_VISIBLE_DEVICES`` count in."""
    names = {gpu.name for gpu in gpus if gpu.parent is None}
    if value and value[:1].isdigit() and len(names) > 1 and order != "PCI_BUS_ID":
        return (UNLIKE_ORDER,)
    return ()


def _gpu(index: int, device: object, memory: Memory | None) -> Gpu:
    capability = ".".join(
        str(part)
        for each in items(_value(device, "nvmlDeviceGetCudaComputeCapability"))
        if (part := count(each)) is not None
    )
    unified = capability in INTEGRATED
    power = count(_value(device, "nvmlDeviceGetEnforcedPowerLimit"))
    pci = _value(device, "nvmlDeviceGetPciInfo")
    lists = [_value(device, f"nvmlDeviceGet{kind}RunningProcesses") for kind in ("Compute", "Graphics")]
    mode = items(_value(device, "nvmlDeviceGetMigMode"))
    gpu = Gpu(
        index=index,
        vendor="nvidia",
        name=text(_value(device, "nvmlDeviceGetName")),
        uuid=text(_value(device, "nvmlDeviceGetUUID")),
        pci_bus_id=bus_id(at(pci, "busId")),
        pci_device_id=device_id(at(pci, "pciDeviceId")),
        compute_capability=capability or None,
        unified=unified,
        bandwidth=nominal_bandwidth(_value(device, "max_clock_mem"), _value(device, "nvmlDeviceGetMemoryBusWidth")),
        power_limit_watts=power / 1000 if power else None,
        temperature_celsius=count(_value(device, "temperature")),
        clock_event_reasons=_reasons(device),
        mig=mode[0] == 1 if mode else None,
        multiprocessors=_multiprocessors(count(_value(device, "nvmlDeviceGetNumGpuCores")), capability),
        processes=processes(lists),
    )
    return _with_memory(gpu, device, memory if unified else None)


def _instance(parent: Gpu, device: object) -> Gpu:
    """A MIG instance: memory and multiprocessors are its own, the rest its GPU's, its bandwidth unknown."""
    gpu = evolve(
        parent,
        parent=parent.index,
        name=text(_value(device, "nvmlDeviceGetName")) or parent.name,
        uuid=text(_value(device, "nvmlDeviceGetUUID")),
        multiprocessors=count(at(_value(device, "nvmlDeviceGetAttributes"), "multiprocessorCount")),
        bandwidth=None,
        power_limit_watts=None,
        processes=(),
        memory_total=None,
        memory_free=None,
        memory_used=None,
        memory_reserved=None,
    )
    return _with_memory(gpu, device, None)


def _with_memory(gpu: Gpu, device: object, shared: Memory | None) -> Gpu:
    """Version 2 tells used from reserved; version 1 (older drivers) counts what is reserved as used."""
    found = _value(device, "memory_v2") or _value(device, "nvmlDeviceGetMemoryInfo")
    total = count(at(found, "total"))
    if not total and shared is not None:
        return evolve(gpu, memory_total=shared.total, memory_free=shared.available)
    return evolve(
        gpu,
        memory_total=total or None,
        memory_free=count(at(found, "free")),
        memory_used=count(at(found, "used")),
        memory_reserved=count(at(found, "reserved")),
    )


def _first_instance(gpu: Gpu, gpus: Sequence[Gpu]) -> list[Gpu]:
    return [each for each in gpus if each.parent == gpu.index][:1]


def _multiprocessors(cores: int | None, capability: str) -> int | None:
    each = CORES.get(capability) or CORES.get(capability.partition(".")[0])
    return cores // each if cores and each and cores % each == 0 else None


def _reasons(device: object) -> int | None:
    names = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
    return next((reasons for name in names if (reasons := count(_value(device, name))) is not None), None)


def device_id(value: object) -> str | None:
    """``10de:2330`` out of NVML's number, which holds the device above the vendor."""
    number = count(value)
    return f"{number & 0xFFFF:04x}:{number >> 16 & 0xFFFF:04x}" if number else None


def _memory_of(entry: object) -> int | None:
    memory = count(at(entry, "usedGpuMemory"))
    return memory if memory is not None and memory < UNSAID else None


def _value(device: object, name: str) -> object:
    return at(device, name, "value")

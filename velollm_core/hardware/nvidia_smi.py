"""NVIDIA GPUs out of nvidia-smi, for machines where NVML cannot be loaded."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from attrs import evolve

from velollm_core.hardware.evidence import Found
from velollm_core.hardware.gpu import Gpu, GpuProcess
from velollm_core.hardware.loose import count, number, size, text
from velollm_core.hardware.nvidia import base_name, bus_id

XML = ("nvidia-smi", "-q", "-x")

CSV = (
    "nvidia-smi",
    "--query-gpu=index,name,uuid,pci.bus_id,driver_version,memory.total,memory.free,memory.used",
    "--format=csv,noheader,nounits",
)
"""Fields that every version knows: one unknown field, and the tool answers nothing but its complaint."""

MOST_GPUS = 256


def parse_xml(document: str) -> Found:
    """The GPUs of ``nvidia-smi -q -x``; nothing where it is no such document.

    It holds no bus width and, before driver 5xx, no compute capability: bandwidth stays unknown.
    """
    start = document.find("<nvidia_smi_log")
    try:
        root = ET.fromstring(document[start:]) if start >= 0 else None
    except (ET.ParseError, ValueError, RecursionError):
        root = None
    if root is None:
        return Found(notes=("nvidia-smi -q -x: its output is no such XML",) if document.strip() else ())
    driver, cuda = text(root.findtext("driver_version")), text(root.findtext("cuda_version"))
    runtime = f"CUDA {cuda}" if cuda else None
    whole_gpus = [
        _gpu(index, element, driver, runtime) for index, element in enumerate(root.findall("gpu")[:MOST_GPUS])
    ]
    cut = [
        instance
        for gpu, element in zip(whole_gpus, root.findall("gpu"), strict=False)
        for instance in _instances(gpu, element)
    ]
    return Found((*whole_gpus, *(evolve(gpu, index=len(whole_gpus) + place) for place, gpu in enumerate(cut))))


def parse_csv(document: str) -> Found:
    """The GPUs of `CSV`; lines of another shape are left out."""
    gpus = []
    for row in _rows(document):
        if len(row) == 8 and (index := count(row[0])) is not None and index < MOST_GPUS:
            total, free, used = (size(cell.strip(), "MiB") for cell in row[5:])
            name, uuid, address, driver = row[1:5]
            gpus.append(
                Gpu(index, "nvidia", text(name), uuid=text(uuid), pci_bus_id=bus_id(address), driver=text(driver),
                    memory_total=total, memory_free=free, memory_used=used)
            )  # fmt: skip
    unique = {gpu.index: gpu for gpu in gpus}
    return Found(tuple(unique.values()))


def _rows(document: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(document.replace("\0", "")), skipinitialspace=True)
    except csv.Error:
        return


def _gpu(index: int, element: ET.Element, driver: str | None, runtime: str | None) -> Gpu:
    def found(path: str) -> str | None:
        return text(element.findtext(path))

    mode = found("mig_mode/current_mig")
    device = text(element.findtext("pci/pci_device_id"))
    watts = found("gpu_power_readings/current_power_limit") or found("power_readings/enforced_power_limit")
    return Gpu(
        index=index,
        vendor="nvidia",
        name=found("product_name"),
        uuid=found("uuid"),
        pci_bus_id=bus_id(element.get("id")),
        pci_device_id=f"{device[-4:]}:{device[:-4][-4:]}".lower() if device and len(device) >= 8 else None,
        driver=driver,
        runtime=runtime,
        memory_total=size(found("fb_memory_usage/total")),
        memory_free=size(found("fb_memory_usage/free")),
        memory_used=size(found("fb_memory_usage/used")),
        memory_reserved=size(found("fb_memory_usage/reserved")),
        power_limit_watts=number((watts or "").removesuffix(" W")),
        temperature_celsius=count((found("temperature/gpu_temp") or "").removesuffix(" C")),
        mig={"Enabled": True, "Disabled": False}.get(mode or ""),
        processes=_processes(element),
    )


def _processes(element: ET.Element) -> tuple[GpuProcess, ...]:
    found = {}
    for info in element.findall("processes/process_info")[:1024]:
        pid = count(info.findtext("pid"))
        if pid is not None:
            found[pid] = GpuProcess(
                pid, base_name(text(info.findtext("process_name"))), size(info.findtext("used_memory"))
            )
    return tuple(found.values())


def _instances(gpu: Gpu, element: ET.Element) -> Iterator[Gpu]:
    """MIG instances: the XML names neither them nor their UUIDs, only their memory and multiprocessors."""
    for instance in element.findall("mig_devices/mig_device")[:64]:
        slices = [count(instance.findtext(f"{kind}_instance_id")) for kind in ("gpu", "compute")]
        yield Gpu(
            index=gpu.index,
            vendor="nvidia",
            name=f"{gpu.name or 'NVIDIA'} MIG {'/'.join(str(each) for each in slices)}",
            pci_bus_id=gpu.pci_bus_id,
            pci_device_id=gpu.pci_device_id,
            driver=gpu.driver,
            runtime=gpu.runtime,
            memory_total=size(instance.findtext("fb_memory_usage/total")),
            memory_free=size(instance.findtext("fb_memory_usage/free")),
            memory_used=size(instance.findtext("fb_memory_usage/used")),
            memory_reserved=size(instance.findtext("fb_memory_usage/reserved")),
            multiprocessors=count(instance.findtext("device_attributes/shared/multiprocessor_count")),
            mig=True,
            parent=gpu.index,
        )

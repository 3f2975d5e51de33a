"""Which source is asked when, and what is said where none answers."""

from __future__ import annotations

import pytest

from velollm_core.hardware import amd_probe, nvidia_smi
from velollm_core.hardware.evidence import Found
from velollm_core.hardware.gpus import find_gpus
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.pci import DEVICES, display_devices
from velollm_core.hardware.recording import Recorder

MEMORY = Memory(2**36, 2**35, 0, 0)


def bus(recorded, machine_name: str) -> dict[str, str]:
    """PCI files out of a machine's listing of display devices."""
    files = {}
    for line in recorded(machine_name, "drm").splitlines():
        place, vendor, device, kind = line.split()
        files |= {f"{place}/vendor": vendor, f"{place}/device": device, f"{place}/class": kind}
    return files


def find(evidence) -> Found:
    return find_gpus(evidence, "Linux", MEMORY, {})


def test_a_machine_without_a_hint_is_asked_nothing(machine) -> None:
    recorder = Recorder(machine({f"{DEVICES}/0000:00:03.0/class": "0x020000\n"}))
    assert find(recorder) == Found()
    assert recorder.kept["tools"] == {}
    assert "nvml" not in recorder.kept["values"]


@pytest.mark.parametrize("machine_name", ["h100", "h200x2"])
def test_nvml_alone(machine, recorded, nvml, machine_name: str) -> None:
    recorder = Recorder(machine(bus(recorded, machine_name), {"nvml": nvml(machine_name)}))
    found = find(recorder)
    assert [gpu.pci_bus_id for gpu in found.gpus] == [device.address for device in display_devices(recorder)]
    assert all(gpu.visible for gpu in found.gpus)
    assert found.notes == ()
    assert recorder.kept["tools"] == {}


def test_cuda_visible_devices_of_this_process(machine, recorded, nvml) -> None:
    values = {"nvml": nvml("h200x2"), "environment CUDA_VISIBLE_DEVICES": "1"}
    assert [gpu.visible for gpu in find(machine(bus(recorded, "h200x2"), values)).gpus] == [False, True]


def test_nvidia_smi_where_nvml_fails(machine, recorded) -> None:
    tools = {nvidia_smi.XML: {"exit_code": 0, "stdout": recorded("h200x2", "xml")}}
    found = find(machine(bus(recorded, "h200x2"), {"nvml": {"error": "NVML: Shared Library Not Found"}}, tools))
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H200", "NVIDIA H200"]
    assert found.notes == ("NVML: Shared Library Not Found",)


def test_the_short_query_where_the_long_one_fails(machine, recorded) -> None:
    row = "0, NVIDIA H100 80GB HBM3, GPU-0, 00000000:00:06.0, 580.159.04, 81559, 81079, 0\n"
    tools = {nvidia_smi.XML: {"exit_code": 0, "stdout": "rubbish"}, nvidia_smi.CSV: {"exit_code": 0, "stdout": row}}
    found = find(machine(bus(recorded, "h100"), {"nvml": {"error": "NVML: x"}}, tools))
    assert [(gpu.name, gpu.pci_bus_id) for gpu in found.gpus] == [("NVIDIA H100 80GB HBM3", "0000:00:06.0")]
    assert found.notes == ("NVML: x", "nvidia-smi -q -x: its output is no such XML")


def test_a_card_without_a_driver_is_shown_and_explained(machine, recorded) -> None:
    evidence = machine(
        bus(recorded, "h100"),
        {"nvml": {"error": "NVML: Shared Library Not Found"}},
        links={f"{DEVICES}/0000:00:06.0/driver": "nouveau"},
    )
    found = find(evidence)
    (gpu,) = found.gpus
    assert (gpu.name, gpu.driver, gpu.visible, gpu.memory_total) == (None, "nouveau", False, None)
    assert found.notes == (
        "NVML: Shared Library Not Found",
        "nvidia-smi: not found",
        "NVIDIA device 10de:2330 at 0000:00:06.0: bound to nouveau, not seen by NVML or nvidia-smi",
    )


def test_a_query_with_an_unknown_field(machine, recorded) -> None:
    answer = {"exit_code": 2, "stdout": recorded("h100", "csv_bad_field")}
    found = find(
        machine(
            {},
            {"tool nvidia-smi": True, "nvml": {"error": "NVML: x"}},
            {nvidia_smi.XML: answer, nvidia_smi.CSV: answer},
        )
    )
    assert found.gpus == ()
    assert 'exit code 2 (Field "nosuchfield" is not a valid field to query.)' in found.notes[1]


def test_one_vendors_failure_costs_only_its_own_gpus(machine, recorded, nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: object) -> Found:
        raise RuntimeError("driver bug")

    monkeypatch.setattr(amd_probe, "find_amd", breaks)
    found = find(machine(bus(recorded, "h100"), {"nvml": nvml("h100"), "tool amd-smi": True}))
    assert len(found.gpus) == 1
    assert found.notes == ("AMD GPUs: RuntimeError: driver bug",)


def test_windows_without_nvidia_says_nothing(machine) -> None:
    evidence = machine({}, {"nvml": {"error": "NVML: NVML Shared Library Not Found"}})
    assert find_gpus(evidence, "Windows", MEMORY, {}) == Found()

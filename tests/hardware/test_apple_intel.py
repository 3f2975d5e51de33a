"""Apple and Intel, in their documented formats."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware import metal
from velollm_core.hardware.apple import PROFILER, parse_profiler
from velollm_core.hardware.gpus import find_gpus
from velollm_core.hardware.intel_probe import find_intel
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.pci import DEVICES, PciDevice, display_devices, look_up, parse_pci_ids

GIB = 2**30
MEMORY = Memory(64 * GIB, 40 * GIB, 0, 0)


def profiler(documented, key: str = "profiler") -> str:
    return json.dumps(documented("apple_m2_max")[key])


def test_a_mac_with_unified_memory(documented) -> None:
    (gpu,) = parse_profiler(profiler(documented), MEMORY, None, documented("apple_m2_max")["metal"])
    assert (gpu.name, gpu.vendor, gpu.runtime, gpu.multiprocessors) == ("Apple M2 Max", "apple", "Metal 3", 38)
    assert (gpu.memory_total, gpu.memory_free) == (48 * GIB, 40 * GIB)
    assert gpu.unified


def test_the_limit_that_somebody_set_stands_where_metal_is_silent(documented) -> None:
    (gpu,) = parse_profiler(profiler(documented), MEMORY, 56 * GIB, {"error": "exit code 1"})
    assert gpu.memory_total == 56 * GIB


def test_an_unknown_working_set_is_unknown(documented, machine) -> None:
    evidence = machine(
        {}, {"metal": {"error": "exit code 1"}}, {PROFILER: {"exit_code": 0, "stdout": profiler(documented)}}
    )
    found = find_gpus(evidence, "Darwin", MEMORY, {"iogpu.wired_limit_mb": "0"})
    assert found.gpus[0].memory_total is None
    assert found.notes == ("Metal: working set unknown (exit code 1), iogpu.wired_limit_mb not set",)


def test_a_mac_with_two_gpus_of_its_own(documented) -> None:
    gpus = parse_profiler(profiler(documented, "intel_mac_profiler"), MEMORY, None, None)
    assert [(gpu.vendor, gpu.name, gpu.memory_total) for gpu in gpus] == [
        ("intel", "Intel UHD Graphics 630", None),
        ("amd", "AMD Radeon Pro 5500M", 8 * GIB),
    ]


def test_a_profiler_that_fails_is_a_note(machine) -> None:
    found = find_gpus(machine(), "Darwin", MEMORY, {})
    assert found.notes == ("system_profiler: not found",)


@pytest.mark.skipif(sys.platform == "darwin", reason="here Metal answers")
def test_metal_elsewhere_is_an_error_that_ends_only_its_child() -> None:
    assert metal.ask_metal() == {"error": "exit code 1"}


@given(st.text(max_size=200))
def test_profiler_rubbish(text: str) -> None:
    parse_profiler(text, MEMORY, None, text)
    parse_profiler(
        json.dumps({"SPDisplaysDataType": [text, {"spdisplays_vendor": text}]}), MEMORY, None, {"working_set": text}
    )


def intel_files(address: str, **files: str) -> dict[str, str]:
    found = {"class": "0x030000\n", "vendor": "0x8086\n", "device": "0x56a0\n", **files}
    return {f"{DEVICES}/{address}/{name.replace('__', '/')}": text for name, text in found.items()}


def test_a_discrete_arc(machine) -> None:
    files = intel_files(
        "0000:03:00.0", tile0__physical_vram_size_bytes="17179869184\n", hwmon__hwmon2__power1_max="190000000\n"
    )
    evidence = machine(files, {"pci name 8086:56a0": "DG2 [Arc A770]"}, links={f"{DEVICES}/0000:03:00.0/driver": "xe"})
    (gpu,) = find_intel(evidence, display_devices(evidence)).gpus
    assert (gpu.name, gpu.driver, gpu.memory_total, gpu.memory_free) == ("DG2 [Arc A770]", "xe", 16 * GIB, None)
    assert (gpu.power_limit_watts, gpu.unified, gpu.visible) == (190.0, False, True)


def test_a_driver_that_tells_what_is_left(machine) -> None:
    evidence = machine(intel_files("0000:03:00.0", lmem_total_bytes="100", lmem_avail_bytes="60"))
    (gpu,) = find_intel(evidence, display_devices(evidence)).gpus
    assert (gpu.memory_total, gpu.memory_free, gpu.memory_used, gpu.visible) == (100, 60, 40, False)


def test_a_discrete_card_whose_memory_nobody_tells(machine) -> None:
    evidence = machine(intel_files("0000:03:00.0"))
    assert find_intel(evidence, display_devices(evidence)).notes == (
        "Intel GPU 0: its driver does not tell how much memory it has",
    )


def test_graphics_inside_the_processor_share_its_memory(machine) -> None:
    evidence = machine(intel_files("0000:00:02.0"))
    found = find_intel(evidence, display_devices(evidence))
    assert found.gpus[0].unified
    assert found.gpus[0].memory_total is None
    assert found.notes == ()


PCI_IDS = """# list
1002  AMD
\t744c  Navi 31
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
\t\t8086 1020  Arc
10de  NVIDIA
\t56a1  Other
"""


@pytest.mark.parametrize(
    ("vendor", "device", "name"),
    [(0x8086, 0x56A0, "DG2 [Arc A770]"), (0x1002, 0x744C, "Navi 31"), (0x8086, 0x56A1, None), (0x1234, 1, None)],
)
def test_pci_names(tmp_path, vendor: int, device: int, name: str | None) -> None:
    card = PciDevice("0000:00:00.0", vendor, device)
    assert parse_pci_ids(PCI_IDS, card) == name
    (tmp_path / "pci.ids").write_text(PCI_IDS)
    assert look_up(card, (str(tmp_path / "absent"), str(tmp_path / "pci.ids"))) == name
    assert look_up(card, ()) is None


@given(st.text(max_size=300))
def test_pci_rubbish(text: str) -> None:
    parse_pci_ids(text, PciDevice("", 0x8086, 1))

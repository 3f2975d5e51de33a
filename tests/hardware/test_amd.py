"""AMD: the kernel's files, amd-smi and rocm-smi, all in their documented formats."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware import amd, amd_tools
from velollm_core.hardware.amd import KfdNode, parse_kfd, parse_memory_clocks
from velollm_core.hardware.amd_probe import find_amd
from velollm_core.hardware.pci import DEVICES, display_devices

PLACE = f"{DEVICES}/0000:03:00.0"
NODE = "/sys/class/kfd/kfd/topology/nodes/1/properties"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def card(machine, documented):
    """A machine with one RX 7900 XTX, its tools as given and its files changed by ``files``."""

    def make(tools: dict | None = None, *, environment: dict | None = None, files: dict | None = None):
        found = documented("amd_7900xtx")
        paths = {f"{PLACE}/{name}": text for name, text in found["files"].items()}
        paths |= {NODE: found["kfd"], "/opt/rocm/.info/version": "6.2.0-66\n", **(files or {})}
        values = {f"environment {name}": value for name, value in (environment or {}).items()}
        values |= {f"tool {argv[0]}": True for argv in tools or {}}
        return machine(paths, values, tools, {f"{PLACE}/driver": "amdgpu"})

    return make


def find(evidence):
    return find_amd(evidence, display_devices(evidence))


def answer(document: object, exit_code: int = 0) -> dict[str, object]:
    return {"exit_code": exit_code, "stdout": document if isinstance(document, str) else json.dumps(document)}


def test_the_kernels_files_alone(card) -> None:
    (gpu,) = find(card()).gpus
    assert (gpu.vendor, gpu.name, gpu.driver, gpu.runtime) == ("amd", None, "amdgpu", "ROCm 6.2.0-66")
    assert (gpu.memory_total, gpu.memory_used) == (25753026560, 1073741824)
    assert gpu.memory_free == 25753026560 - 1073741824
    assert (gpu.compute_capability, gpu.multiprocessors) == ("gfx1100", 96)
    assert (gpu.power_limit_watts, gpu.temperature_celsius) == (339.0, 45)
    assert (gpu.uuid, gpu.pci_device_id) == ("GPU-7cf529dea4b33bad", "1002:744c")
    assert gpu.bandwidth is None
    assert gpu.visible
    assert not gpu.unified


def test_amd_smi_adds_name_and_bandwidth(card, documented) -> None:
    for document in (documented("amd_7900xtx")["amd_smi"], {"gpu_data": documented("amd_7900xtx")["amd_smi"]}):
        (gpu,) = find(card({amd_tools.AMD_SMI: answer(document)})).gpus
        assert gpu.name == "Radeon RX 7900 XTX"
        assert gpu.driver == "6.8.5"
        assert gpu.memory_total == 25753026560
        assert gpu.bandwidth.value == pytest.approx(960e9, rel=0.001)
        assert gpu.bandwidth.basis == "nominal"


def test_amd_smis_own_bandwidth_wins(card, documented) -> None:
    document = documented("amd_7900xtx")["amd_smi"]
    document[0]["vram"]["max_bandwidth"] = {"value": 960, "unit": "GB/s"}
    (gpu,) = find(card({amd_tools.AMD_SMI: answer(document)})).gpus
    assert gpu.bandwidth.value == 960e9


def test_rocm_smi_is_asked_where_amd_smi_fails(card, documented) -> None:
    tools = {
        amd_tools.AMD_SMI: {"exit_code": 2, "stdout": "", "stderr": "amd-smi: no driver"},
        amd_tools.ROCM_SMI: answer("WARNING: low power\n" + json.dumps(documented("amd_7900xtx")["rocm_smi"])),
    }
    found = find(card(tools))
    assert found.gpus[0].name == "Radeon RX 7900 XTX"
    assert found.notes == ("amd-smi: exit code 2 (amd-smi: no driver)",)


def test_rubbish_of_both_tools_costs_a_note_each(card) -> None:
    found = find(card({amd_tools.AMD_SMI: answer("Segmentation fault"), amd_tools.ROCM_SMI: answer("[]")}))
    assert len(found.gpus) == 1
    assert found.notes == ("amd-smi: printed no JSON with a card in it", "rocm-smi: printed no JSON with a card in it")


def test_an_apu_uses_main_memory_beyond_its_carve_out(card, documented) -> None:
    kfd = documented("amd_7900xtx")["kfd"].replace("110000", "110501")
    files = {NODE: kfd, f"{PLACE}/mem_info_vram_total": "536870912\n", f"{PLACE}/mem_info_vram_used": "100000000\n"}
    (gpu,) = find(card(files=files)).gpus
    assert gpu.compute_capability == "gfx1151"
    assert gpu.unified
    assert gpu.memory_total == 536870912 + 33554432000


def test_a_card_given_to_somebody_else_is_not_visible(card) -> None:
    evidence = card()
    evidence.kept["links"][f"{PLACE}/driver"] = "vfio-pci"
    assert not find(evidence).gpus[0].visible


@pytest.mark.parametrize(
    ("environment", "visible"),
    [({}, True), ({"ROCR_VISIBLE_DEVICES": ""}, False), ({"ROCR_VISIBLE_DEVICES": "0"}, True),
     ({"ROCR_VISIBLE_DEVICES": "GPU-7cf5"}, True), ({"ROCR_VISIBLE_DEVICES": "1"}, False),
     ({"HIP_VISIBLE_DEVICES": "-1"}, False), ({"CUDA_VISIBLE_DEVICES": "-1"}, False),
     ({"HIP_VISIBLE_DEVICES": "0", "CUDA_VISIBLE_DEVICES": "-1"}, True)],
)  # fmt: skip
def test_rocms_variables(card, environment: dict[str, str], visible: bool) -> None:
    assert find(card(environment=environment)).gpus[0].visible is visible


def test_hip_counts_what_rocr_leaves() -> None:
    nodes = [KfdNode(f"0000:0{n}:00.0", "gfx1100", 96, n) for n in range(3)]
    gpus = [amd.Gpu(n, "amd", None, pci_bus_id=node.address) for n, node in enumerate(nodes)]
    assert [gpu.visible for gpu in amd.mark_visible(gpus, nodes, "2,1", "0")] == [False, False, True]


@pytest.mark.parametrize(
    ("version", "target"), [("110000", "gfx1100"), ("90010", "gfx90a"), ("90402", "gfx942"), ("100300", "gfx1030")]
)
def test_targets(version: str, target: str) -> None:
    node = parse_kfd(f"simd_count 8\nsimd_per_cu 2\nlocation_id 768\ngfx_target_version {version}\n")
    assert node == KfdNode("0000:03:00.0", target, 4, 0)


def test_a_processors_node_is_no_gpu() -> None:
    assert parse_kfd("cpu_cores_count 32\nsimd_count 0\n") is None


def test_tools_alone_on_another_system(documented) -> None:
    cards = amd_tools.parse_amd_smi(json.dumps(documented("amd_7900xtx")["amd_smi"]))
    (gpu,) = amd_tools.add_cards([], cards, {})
    assert gpu.memory_total == 24560 * 2**20
    assert (gpu.compute_capability, gpu.multiprocessors, gpu.power_limit_watts) == ("gfx1100", 96, 339.0)
    assert gpu.bandwidth is None


@given(JSON, st.text(max_size=200))
def test_rubbish(value: object, text: str) -> None:
    for document in (
        text,
        json.dumps(value),
        json.dumps([{"vram": value, "asic": value}]),
        json.dumps({"card0": value}),
    ):
        for cards in (amd_tools.parse_amd_smi(document), amd_tools.parse_rocm_smi(document)):
            amd_tools.add_cards([], cards, {})
    parse_kfd(text)
    parse_kfd(f"simd_count 4\nlocation_id {text}\nunique_id {text}\n")
    parse_memory_clocks(text)

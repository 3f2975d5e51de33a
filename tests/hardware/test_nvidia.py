"""NVIDIA: NVML's answers of an H100 and two H200, nvidia-smi's, and cards known by their data sheets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware.gpu import GpuProcess
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.nvidia import base_name, bus_id, mark_visible, parse_nvml, visibility_notes
from velollm_core.hardware.nvidia_smi import parse_csv, parse_xml

MIB = 2**20
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


def card(**answers: object) -> dict[str, object]:
    """One device's answers, ``value``s only."""
    return {name: {"value": value} for name, value in answers.items()}


def test_an_idle_h100(nvml) -> None:
    (gpu,) = parse_nvml(nvml("h100")).gpus
    assert (gpu.name, gpu.vendor, gpu.index) == ("NVIDIA H100 80GB HBM3", "nvidia", 0)
    assert (gpu.pci_bus_id, gpu.pci_device_id) == ("0000:00:06.0", "10de:2330")
    assert (gpu.driver, gpu.runtime, gpu.compute_capability) == ("580.159.04", "CUDA 13.0", "9.0")
    assert (gpu.multiprocessors, gpu.power_limit_watts, gpu.temperature_celsius) == (132, 700.0, 33)
    assert (gpu.mig, gpu.unified, gpu.clock_event_reasons, gpu.processes) == (False, False, 1, ())


def test_what_the_driver_reserves_is_not_used(nvml) -> None:
    (gpu,) = parse_nvml(nvml("h100")).gpus
    assert (gpu.memory_used, gpu.memory_reserved) == (0, 503316480)
    assert gpu.memory_total == gpu.memory_free + gpu.memory_used + gpu.memory_reserved


def test_without_the_second_structure_free_is_still_right(nvml) -> None:
    answers = nvml("h100")
    answers["devices"][0]["memory_v2"] = {"error": "Function Not Found", "code": 13}
    (gpu,) = parse_nvml(answers).gpus
    assert (gpu.memory_free, gpu.memory_reserved) == (85017493504, None)


def test_a_busy_h100_and_who_keeps_it_busy(nvml) -> None:
    (gpu,) = parse_nvml(nvml("h100", "busy")).gpus
    assert gpu.processes == (GpuProcess(453, None, 1147142144),)
    assert gpu.memory_used == 1156382720
    assert gpu.clock_event_reasons == 4


@pytest.mark.parametrize(("machine_name", "expected"), [("h100", 3352.32e9), ("h200x2", 4814.304e9)])
def test_nominal_bandwidth_needs_no_table(nvml, machine_name: str, expected: float) -> None:
    for gpu in parse_nvml(nvml(machine_name)).gpus:
        assert gpu.bandwidth is not None
        assert gpu.bandwidth.basis == "nominal"
        assert gpu.bandwidth.value == pytest.approx(expected)


def test_other_cards_agree_with_their_data_sheets(documented) -> None:
    for sheet in documented("nvidia")["cards"]:
        answers = card(
            nvmlDeviceGetName=sheet["name"],
            nvmlDeviceGetCudaComputeCapability=sheet["capability"],
            max_clock_mem=sheet["clock"],
            nvmlDeviceGetMemoryBusWidth=sheet["bits"],
            nvmlDeviceGetNumGpuCores=sheet["cores"],
            memory_v2={"total": sheet["total"], "free": sheet["total"], "used": 0, "reserved": 0},
        )
        (gpu,) = parse_nvml({"devices": [answers]}).gpus
        assert gpu.bandwidth.value == pytest.approx(sheet["gigabytes_per_second"] * 1e9, rel=0.01), sheet["name"]
        assert gpu.multiprocessors == sheet["multiprocessors"], sheet["name"]
        assert gpu.memory_total == sheet["total"]


def test_a_gpu_that_shares_main_memory() -> None:
    answers = card(nvmlDeviceGetName="NVIDIA GB10", nvmlDeviceGetCudaComputeCapability=[12, 1])
    answers["memory_v2"] = {"error": "Not Supported", "code": 3}
    memory = Memory(128 * 2**30, 100 * 2**30, 0, 0)
    (gpu,) = parse_nvml({"devices": [answers]}, memory).gpus
    assert gpu.unified
    assert (gpu.memory_total, gpu.memory_free) == (memory.total, memory.available)


def test_a_lost_gpu_is_a_note(nvml) -> None:
    answers = nvml("h200x2")
    answers["devices"][0] = {"error": "GPU is lost"}
    found = parse_nvml(answers)
    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.notes == ("NVIDIA GPU 0: GPU is lost",)


def mig_answers() -> dict[str, object]:
    """An A100 cut into two instances, after NVIDIA's MIG guide, beside a whole one."""
    instances = [
        card(nvmlDeviceGetName="NVIDIA A100-SXM4-40GB MIG 3g.20gb", nvmlDeviceGetUUID=f"MIG-{digit * 8}-0000",
             nvmlDeviceGetAttributes={"multiprocessorCount": 42},
             memory_v2={"total": 20937965568, "free": 20899168256, "used": 38797312, "reserved": 0})
        for digit in "cd"
    ]  # fmt: skip
    cut = card(nvmlDeviceGetName="NVIDIA A100-SXM4-40GB", nvmlDeviceGetUUID="GPU-aaaaaaaa-0000",
               nvmlDeviceGetMigMode=[1, 1], max_clock_mem=1215, nvmlDeviceGetMemoryBusWidth=5120)  # fmt: skip
    plain = card(
        nvmlDeviceGetName="NVIDIA A100-SXM4-40GB", nvmlDeviceGetUUID="GPU-bbbbbbbb-0000", nvmlDeviceGetMigMode=[0, 0]
    )
    return {"driver": "535.129.03", "cuda": 12020, "devices": [{**cut, "instances": instances}, plain]}


def test_mig_instances_stand_beside_their_gpu() -> None:
    gpus = parse_nvml(mig_answers()).gpus
    assert [(gpu.index, gpu.parent, gpu.mig) for gpu in gpus] == [
        (0, None, True),
        (1, None, False),
        (2, 0, True),
        (3, 0, True),
    ]
    assert (gpus[2].memory_total, gpus[2].multiprocessors, gpus[2].bandwidth) == (20937965568, 42, None)
    assert gpus[2].runtime == "CUDA 12.2"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, [2]), ("0", [2]), ("1", [1]), ("1,0", [2]), ("MIG-dd", [3]), ("MIG-cc,MIG-dd", [2]), ("GPU-aa", [2]),
     ("GPU-bb", [1]), ("MIG-ee", []), ("", []), ("-1", [])],
)  # fmt: skip
def test_a_program_sees_one_mig_instance(value: str | None, shown: list[int]) -> None:
    gpus = mark_visible(parse_nvml(mig_answers()).gpus, value)
    assert [gpu.index for gpu in gpus if gpu.visible] == shown


def test_a_gpu_cut_into_nothing_is_not_usable() -> None:
    answers = card(nvmlDeviceGetMigMode=[1, 1])
    assert [gpu.visible for gpu in mark_visible(parse_nvml({"devices": [answers]}).gpus, None)] == [False]


def test_unlike_gpus_are_counted_fastest_first() -> None:
    gpus = parse_nvml({"devices": [card(nvmlDeviceGetName="A"), card(nvmlDeviceGetName="B")]}).gpus
    assert visibility_notes(gpus, "1", None)
    assert not visibility_notes(gpus, "1", "PCI_BUS_ID")
    assert not visibility_notes(gpus, None, None)
    assert not visibility_notes(gpus[:1], "0", None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("00000000:00:06.0", "0000:00:06.0"), ("00000002:3B:00.0", "0002:3b:00.0"), (None, None), ("x", None)],
)
def test_addresses_read_as_in_sysfs(value: object, expected: str | None) -> None:
    assert bus_id(value) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/home/ann/venv/bin/python", "python"), ("C:\\Program Files\\App\\app.exe", "app.exe"),
     ("/opt/chrome/chrome --type=gpu-process --x=/a/b", "chrome"), (None, None), ("/", None)],
)  # fmt: skip
def test_program_names_have_no_folder(path: str | None, expected: str | None) -> None:
    assert base_name(path) == expected


@given(JSON)
def test_nvml_rubbish_is_no_gpu_and_no_error(value: object) -> None:
    device = {"memory_v2": value, "nvmlDeviceGetPciInfo": {"value": value}}
    for answers in (value, {"devices": value}, {"devices": [value, device]}):
        for gpu in parse_nvml(answers).gpus:
            assert gpu.memory_total is None or gpu.memory_total > 0


@pytest.mark.parametrize("machine_name", ["h100", "h200x2"])
def test_nvidia_smi_says_the_same_as_nvml(machine_name: str, recorded, nvml) -> None:
    by_nvml = parse_nvml(nvml(machine_name)).gpus
    by_xml = parse_xml(recorded(machine_name, "xml")).gpus
    assert len(by_xml) == len(by_nvml)
    for one, other in zip(by_nvml, by_xml, strict=True):
        for name in (
            "index",
            "name",
            "uuid",
            "pci_bus_id",
            "pci_device_id",
            "driver",
            "runtime",
            "mig",
            "power_limit_watts",
        ):
            assert getattr(one, name) == getattr(other, name), name
        for name in ("memory_total", "memory_free", "memory_used", "memory_reserved"):
            # nvidia-smi rounds each figure to a MiB by itself.
            assert abs(getattr(one, name) - getattr(other, name)) <= MIB, name
        assert other.bandwidth is None


def test_nvidia_smi_with_mig(documented) -> None:
    whole, first, second = parse_xml(documented("nvidia")["mig_xml"]).gpus
    assert (whole.mig, whole.power_limit_watts) == (True, 400.0)
    assert whole.processes == (GpuProcess(4711, "python", 1024 * MIB),)
    assert (first.parent, first.index, second.index) == (0, 1, 2)
    assert (first.memory_free, first.multiprocessors) == (19930 * MIB, 42)


@pytest.mark.parametrize("machine_name", ["h100", "h200x2"])
def test_the_short_query(machine_name: str, recorded, nvml) -> None:
    rows = []
    for line in recorded(machine_name, "csv_nounits").splitlines():
        cells = line.split(", ")
        rows.append(", ".join([str(len(rows)), *cells[:4], cells[6], cells[8], cells[9]]))
    by_csv, by_nvml = parse_csv("\n".join(rows) + "\n").gpus, parse_nvml(nvml(machine_name)).gpus
    assert [gpu.pci_bus_id for gpu in by_csv] == [gpu.pci_bus_id for gpu in by_nvml]
    assert all(abs(one.memory_free - other.memory_free) <= MIB for one, other in zip(by_csv, by_nvml, strict=True))


def test_a_complaint_is_no_gpu(recorded) -> None:
    assert parse_csv(recorded("h100", "csv_bad_field")).gpus == ()
    assert parse_xml(recorded("h100", "csv_bad_field")).notes


@given(st.text(max_size=400))
def test_nvidia_smi_rubbish(text: str) -> None:
    parse_csv(text)
    parse_xml(text)
    parse_xml(f"<nvidia_smi_log><gpu id='{text}'>{text}</gpu></nvidia_smi_log>")
    assert parse_csv(f"0, {text}").notes == ()


def test_an_entity_bomb_is_no_document() -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE x [<!ENTITY e0 "boom">{entities}]><nvidia_smi_log>&e11;</nvidia_smi_log>'
    assert parse_xml(bomb).gpus == ()

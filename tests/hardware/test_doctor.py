"""The report for a bug: nothing in it names anybody, and it reads back as the machine it came from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.errors import VeloError
from velollm_core.hardware import nvidia_smi
from velollm_core.hardware.doctor import doctor_report, read_report, redactor_here
from velollm_core.hardware.linux_cpu import CPUS
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.machine import Hardware
from velollm_core.hardware.pci import DEVICES
from velollm_core.hardware.probe import detect_hardware, read_hardware
from velollm_core.hardware.recording import Recorder, Recording
from velollm_core.hardware.redact import Redactor
from velollm_core.render import plain, structure

UUID = "8932f937-d72c-4106-c12f-20bd9faed9f6"
CONTAINER = "4f" * 31 + "ab"
LAPTOP = Redactor(home="/home/ann", user="ann", host="annas-laptop")


@pytest.fixture
def owned(machine, nvml):
    """A machine whose answers name its owner in every way known."""
    answers = nvml("h200x2")
    answers["devices"][0]["nvmlDeviceGetUUID"]["value"] = f"GPU-{UUID}"
    answers["devices"][0]["nvmlDeviceGetSerial"] = {"value": "1320220012345"}
    answers["devices"][0]["nvmlDeviceGetComputeRunningProcesses"]["value"] = [
        {"pid": 7, "usedGpuMemory": 1024, "name": "python"}
    ]
    group = f"/docker/{CONTAINER}"
    files = {
        "/proc/meminfo": "MemTotal: 65536000 kB\nMemAvailable: 60000000 kB\nSwapTotal: 0 kB\n",
        "/proc/cpuinfo": "processor: 0\nmodel name: Some Processor\nflags: avx2 hypervisor\n",
        f"{CPUS}/online": "0-3\n",
        "/proc/self/cgroup": f"0::{group}\n",
        f"/sys/fs/cgroup{group}/memory.max": f"{2**34}\n",
        f"/sys/fs/cgroup{group}/memory.current": f"{2**30}\n",
        f"/sys/fs/cgroup{group}/cpu.max": "200000 100000\n",
        f"{DEVICES}/0000:00:06.0/class": "0x030200\n",
        f"{DEVICES}/0000:00:06.0/vendor": "0x10de\n",
        f"{DEVICES}/0000:00:06.0/device": "0x2335\n",
    }
    values = {
        "platform": {"system": "Linux", "release": "6.18.44", "machine": "x86_64"},
        "affinity": [0, 1, 2, 3],
        "cgroup mounts": ["30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw"],
        "nvml": answers,
        "environment CUDA_VISIBLE_DEVICES": "GPU-8932",
        "bandwidth": {"undisturbed": [20e9] * 4, "disturbed": []},
    }
    return Recorder(machine(files, values))


def report_of(recorder: Recorder, redactor: Redactor) -> tuple[Hardware, dict[str, object]]:
    hardware = read_hardware(recorder)
    return hardware, json.loads(json.dumps(doctor_report(recorder.kept, redactor, hardware=plain(hardware))))


def test_a_report_reads_back_as_the_same_machine(owned, tmp_path: Path) -> None:
    hardware, report = report_of(owned, LAPTOP)
    assert hardware.memory.limit == 2**34
    assert hardware.cpu.quota == 2.0
    assert [gpu.visible for gpu in hardware.gpus] == [True, False]
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    again = read_hardware(read_report(path))
    assert again == structure(report["hardware"], Hardware, "report")
    assert again.memory == hardware.memory
    assert again.cpu == hardware.cpu
    assert [gpu.visible for gpu in again.gpus] == [True, False]
    assert [gpu.memory_free for gpu in again.gpus] == [gpu.memory_free for gpu in hardware.gpus]


def test_nothing_in_it_names_anybody(owned) -> None:
    _, report = report_of(owned, LAPTOP)
    text = json.dumps(report)
    for secret in ("ann", UUID, "8932f937", CONTAINER, "1320220012345", "laptop"):
        assert secret not in text, secret


def test_this_machine_reads_back_as_it_is(tmp_path: Path) -> None:
    recorder = Recorder(LiveEvidence())
    hardware = read_hardware(recorder, probe_bandwidth=False)
    report = doctor_report(recorder.kept, redactor_here(), hardware=plain(hardware))
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    assert read_hardware(read_report(path), probe_bandwidth=False) == structure(report["hardware"], Hardware, "report")
    assert report["versions"]["velollm"]


def test_a_machine_by_nvidia_smi_reads_back(machine, recorded, tmp_path: Path) -> None:
    xml = recorded("h200x2", "xml").replace("00000001-0000-0000-0000-000000000000", UUID)
    name = "<process_name>/home/ann/x/python -m y</process_name>"
    process = f"<process_info><pid>7</pid>{name}<used_memory>1 MiB</used_memory></process_info>"
    xml = xml.replace("<processes>", f"<processes>{process}")
    xml = xml.replace("0000000000000</serial>", "1320220012345</serial>")
    tools = {nvidia_smi.XML: {"exit_code": 0, "stdout": xml}}
    values = {"platform": {"system": "Linux"}, "tool nvidia-smi": True, "nvml": {"error": "NVML: x"}}
    hardware, report = report_of(Recorder(machine({}, values, tools)), LAPTOP)
    assert [process.name for process in hardware.gpus[0].processes] == ["python"]
    again = read_hardware(Recording(report["evidence"]))
    assert again == structure(report["hardware"], Hardware, "report")
    assert not {"ann", UUID, "1320220012345"} & set(json.dumps(report).replace("/", " ").split())
    assert UUID not in json.dumps(report)


def test_amds_identifier_in_all_its_spellings(machine, documented) -> None:
    found = documented("amd_7900xtx")
    place = f"{DEVICES}/0000:03:00.0"
    files = {f"{place}/{name}": text for name, text in found["files"].items()}
    files["/sys/class/kfd/kfd/topology/nodes/1/properties"] = found["kfd"]
    values = {"platform": {"system": "Linux"}, "environment ROCR_VISIBLE_DEVICES": "GPU-7cf529"}
    values["tool amd-smi"] = True
    tools = {("amd-smi", "static", "--json"): {"exit_code": 0, "stdout": json.dumps(found["amd_smi"])}}
    hardware, report = report_of(Recorder(machine(files, values, tools, {f"{place}/driver": "amdgpu"})), LAPTOP)
    assert hardware.gpus[0].visible
    text = json.dumps(report).lower()
    assert "7cf529" not in text
    assert "9004149066219862957" not in text
    again = read_hardware(Recording(report["evidence"]))
    assert again == structure(report["hardware"], Hardware, "report")
    assert again.gpus[0].visible


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ann/models and /home/bob/x", "~/models and /home/user/x"),
        ("C:\\Users\\Ann\\x", "C:\\Users\\user\\x"),
        ("ann@annas-laptop: vanna", "user@host: vanna"),
        ("http://ann:pw@10.1.2.3:8080/v1", "http://removed@192.0.2.0:8080/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("HF_TOKEN=hf_abcdefghijklmn", "HF_TOKEN=removed"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer removed"),
        ('{"api_key": "0123456789"}', '{"api_key": "removed"}'),
        ("sk-abcdefgh12345678", "removed"),
        ("write to ann.smith@example.org", "write to removed@example.com"),
        ("00:1a:2b:3c:4d:5e", "00:00:00:00:00:00"),
        ("driver 580.159.04, 31.0.15.3623", "driver 580.159.04, 31.0.15.3623"),
        ("0000:00:06.0 9223372036854771712 0x0000000000000001", "0000:00:06.0 9223372036854771712 0x0000000000000001"),
    ],
)
def test_what_is_taken_out_and_what_stays(value: str, expected: str) -> None:
    redactor = Redactor(home="/home/ann", user="ann", host="annas-laptop")
    assert redactor.text(value) == expected


def test_a_user_named_like_a_vendor_hides_nothing() -> None:
    assert Redactor(user="nvidia", host="gpu").text("nvidia-smi on gpu") == "nvidia-smi on gpu"


def test_stand_ins_are_the_same_everywhere() -> None:
    redactor = Redactor()
    one = redactor.text(f"GPU-{UUID}")
    assert redactor.text(f"x {UUID.upper()} y") == f"x {one[4:]} y"
    assert redactor.complete("GPU-8932,0") == f"{one},0"
    assert redactor.complete("GPU-ffee") == "GPU-ffffffff"
    assert redactor.complete("1, 0") == "1,0"
    assert redactor.complete("") == ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_anything_can_be_redacted(value: object) -> None:
    redactor = Redactor(home="/home/ann", user="ann", host="box")
    redactor.learn(value)
    json.dumps(redactor.value(value))


@given(JSON)
def test_any_evidence_is_a_machine(value: object) -> None:
    files = dict.fromkeys(("/proc/meminfo", "/proc/cpuinfo", "/proc/self/cgroup", f"{DEVICES}/0/class"), value)
    kept = {
        "files": files,
        "directories": {DEVICES: ["0"]},
        "values": {"platform": {"system": "Linux"}, "nvml": value, "affinity": value},
    }
    hardware = read_hardware(Recording(kept))
    assert structure(json.loads(json.dumps(plain(hardware))), Hardware, "x") == hardware


def test_nothing_known_is_no_error() -> None:
    hardware = read_hardware(Recording({}))
    assert hardware.memory.total == 0
    assert hardware.gpus == ()
    assert len(hardware.notes) == 2


def test_detect_hardware_sees_this_machine() -> None:
    hardware = detect_hardware(probe_bandwidth=False)
    assert hardware.memory.total > 0
    assert hardware.cpu.bandwidth is None


@pytest.mark.parametrize(
    ("text", "word"),
    [("{", "cannot be read as JSON"), ("[]", "is no report"), ('{"schema": "velollm.detect/1"}', "is no report"),
     ('{"schema": "velollm.doctor/1", "evidence": {}}', "lacks one of files"), (None, "cannot be read")],
)  # fmt: skip
def test_what_is_no_report(tmp_path: Path, text: str | None, word: str) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(VeloError, match=word):
        read_report(path)

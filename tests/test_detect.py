"""`velollm detect` as a program: one JSON document, a table, a report; no tool can break it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from velollm_core.backends.status import Status
from velollm_core.commands import detect
from velollm_core.figures import Interval, Rate
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.doctor import read_report
from velollm_core.hardware.gpu import Gpu, GpuProcess
from velollm_core.hardware.machine import Hardware, Platform
from velollm_core.hardware.memory import Memory
from velollm_core.hardware.probe import read_hardware
from velollm_core.render import read_document, structure

GOLDEN = Path(__file__).parent / "hardware" / "detect.json"
GIB = 2**30

WORKSTATION = Hardware(
    Platform("Linux", "6.8.0", "x86_64", "Ubuntu 24.04.3 LTS", container=True, virtual_machine=False),
    Cpu("Some Processor [x]", "GenuineIntel", "x86_64", 24, 32, 8, 4, 3.5, 8, 16, 800_000_000, 5_800_000_000,
        ("avx2", "fma"), Rate(60e9, "measured", Interval(55e9, 62e9)), 4),
    Memory(64 * GIB, 20 * GIB, 8 * GIB, 8 * GIB, 32 * GIB, 12 * GIB),
    (
        Gpu(0, "nvidia", "NVIDIA GeForce RTX 4090", "GPU-0", "0000:01:00.0", "10de:2684", "580.1", "CUDA 13.0", "8.9",
            24 * GIB, 20 * GIB, 3 * GIB, GIB, bandwidth=Rate(1008e9, "nominal"), power_limit_watts=450.0,
            temperature_celsius=40, clock_event_reasons=0, mig=False, multiprocessors=128,
            processes=(GpuProcess(7, "Xorg", 300 * 2**20), GpuProcess(8, None, None))),
        Gpu(0, "intel", None, pci_bus_id="0000:00:02.0", unified=True, visible=False),
    ),
    ("amd-smi: exit code 2 ([red]no driver[/red])",),
)  # fmt: skip


class FakePlugins:
    """Two backends, one of them absent."""

    owners: Mapping[str, str] = {"ollama": "ollama", "vllm": "vllm"}

    @classmethod
    def load(cls) -> FakePlugins:
        return cls()

    def detect(self, hardware: Hardware) -> list[object]:
        return []

    def statuses(self, backends: list[object]) -> dict[str, Status]:
        models = tuple(f"model-{number}" for number in range(7))
        return {
            "ollama": Status(True, "0.12.3", models, None, "http://127.0.0.1:11434", running=True),
            "vllm": Status(False, reason="vllm does not answer; start it", location="http://127.0.0.1:8000"),
        }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch):
    """Run the command on the workstation above."""
    monkeypatch.setattr(detect, "read_hardware", lambda *_, **__: WORKSTATION)
    monkeypatch.setattr(detect, "Plugins", FakePlugins)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(detect.command, arguments, catch_exceptions=False)

    return invoke


def shape(value: object) -> object:
    """Keys and types of a document, which programs rely on."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value[:1]]
    return type(value).__name__


def test_the_document_is_the_golden_one(run) -> None:
    result = run("--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads(GOLDEN.read_text())


def test_the_document_reads_back_as_the_machine(run, tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    run("-o", str(path))
    assert read_document(path, "detect", "hardware", Hardware) == WORKSTATION


def test_the_table_says_what_a_person_needs(run) -> None:
    text = run("-v").stdout
    for words in (
        "Ubuntu 24.04.3 LTS (Linux 6.8.0 x86_64), in a container",
        "Some Processor [x] (x86_64)",
        "24 cores (8 performance, 16 efficiency), 32 threads; 4 cores and 8 threads allowed here;",
        "; 3.5 cores' worth of time",
        "64.00 GiB, 20.00 GiB available; limited to 32.00 GiB, of which 12.00 GiB used; swap 8.00 GiB, 8.00 GiB free",
        "60.0 GB/s (55.0–62.0, measured)",
        "24.00 GiB, 20.00 GiB free, 3.00 GiB used, 1.00 GiB reserved by the driver",
        "1008.0 GB/s (nominal)",
        "Xorg (7) holds 300.00 MiB",
        "unknown (8) holds unknown",
        "unknown  (not visible to programs)",
        "shared with the processor",
        "running, version 0.12.3, http://127.0.0.1:11434",
        "model-4 and 2 more",
        "not reachable, http://127.0.0.1:8000",
        "vllm does not answer; start it",
        "Note: amd-smi: exit code 2 ([red]no driver[/red])",
    ):
        assert words in text, words


def test_only_json_is_written_to_files(run) -> None:
    result = run("-o", "machine.yaml")
    assert result.exit_code == 2
    assert "name the file machine.json, not machine.yaml" in result.stderr


def velollm(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "velollm_core", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def bare(tmp_path: Path) -> dict[str, str]:
    """A process without plugins, whose cache is its own."""
    return {"VELOLLM_ONLY_PLUGINS": "none-of-them", "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_stdout_is_one_document(tmp_path: Path) -> None:
    done = velollm("detect", "--json", "--no-probe", **bare(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["schema"] == "velollm.detect/1"
    assert found["backends"] == []
    assert found["hardware"]["cpu"]["bandwidth"] is None
    golden = json.loads(GOLDEN.read_text())["hardware"]
    assert all(found["hardware"][name].keys() == golden[name].keys() for name in ("platform", "cpu", "memory"))
    assert structure(found["hardware"], Hardware, "stdout").memory.total > 0


def test_the_probe_is_made_once_a_machine(tmp_path: Path) -> None:
    environment = bare(tmp_path)
    first = json.loads(velollm("detect", "--json", **environment).stdout)["hardware"]["cpu"]["bandwidth"]
    second = json.loads(velollm("detect", "--json", **environment).stdout)["hardware"]["cpu"]["bandwidth"]
    assert first["basis"] == "measured"
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    "body", ["import time; time.sleep(600)", "print('\\x00\\xff rubbish {')", "import sys; sys.exit(2)"]
)
def test_no_tool_can_break_it(tmp_path: Path, body: str) -> None:
    for name in ("nvidia-smi", "rocm-smi", "amd-smi"):
        (tmp_path / name).write_text(f"#!{sys.executable} -S\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = velollm(
        "detect", "--json", "--no-probe", "--doctor", str(tmp_path / "report.json"), PATH=path, **bare(tmp_path)
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    hardware = structure(json.loads(done.stdout)["hardware"], Hardware, "stdout")
    notes = "\n".join(hardware.notes)
    assert all(name in notes for name in ("nvidia-smi", "rocm-smi", "amd-smi"))
    assert read_hardware(read_report(tmp_path / "report.json"), probe_bandwidth=False).notes == hardware.notes


@pytest.mark.parametrize(("option", "folder"), [("--doctor", "absent"), ("-o", "absent"), ("-o", "file")])
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, option: str, folder: str) -> None:
    (tmp_path / "file").write_text("")
    done = velollm("detect", "--no-probe", option, str(tmp_path / folder / "out.json"), **bare(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "cannot be written" in done.stderr


def test_the_golden_document_has_every_field() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert structure(golden["hardware"], Hardware, "golden") == WORKSTATION
    assert set(shape(golden)["backends"][0]) == {"name", "plugin", "location", "status"}

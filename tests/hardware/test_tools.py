"""Tools that hang, print rubbish, print without end or fail: bounded, and never an exception."""

from __future__ import annotations

import os
import stat
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.hardware import tools
from velollm_core.hardware.evidence import ToolRun
from velollm_core.hardware.live import LiveEvidence
from velollm_core.hardware.recording import Recorder, Recording
from velollm_core.hardware.tools import run_tool


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put a tool on PATH that runs the Python given."""
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])

    def make(name: str, body: str) -> None:
        path = tmp_path / name
        path.write_text(f"#!{sys.executable} -S\n{body}\n")
        path.chmod(0o755)

    return make


def test_a_tool_that_works(tool) -> None:
    tool("vendor-smi", "import sys; print('fine', sys.argv[1:])")
    run = run_tool(("vendor-smi", "-q"), 20)
    assert run == ToolRun(("vendor-smi", "-q"), 0, "fine ['-q']\n")
    assert run.complaint is None


def test_a_missing_tool() -> None:
    run = run_tool(("no-such-tool-here",), 20)
    assert run.complaint == "no-such-tool-here: not found"


def test_a_tool_that_fails(tool) -> None:
    tool("vendor-smi", "import sys; sys.stderr.write('no devices\\n'); sys.exit(2)")
    assert run_tool(("vendor-smi",), 20).complaint == "vendor-smi: exit code 2 (no devices)"


def test_a_tool_that_hangs_ends_with_its_children(tool, tmp_path: Path) -> None:
    mark = tmp_path / "child"
    tool(
        "vendor-smi",
        f"import os, time\nif not os.fork(): open({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )
    begin = time.monotonic()
    run = run_tool(("vendor-smi",), 2.0)
    assert run.complaint == "vendor-smi: no answer within 2 s"
    assert time.monotonic() - begin < 60
    if mark.exists() and (child := mark.read_text()):
        assert not _alive(int(child))


def _alive(pid: int) -> bool:
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


def test_a_tool_that_leaves_a_child_holding_its_pipes(tool) -> None:
    tool("vendor-smi", "import os, time\nprint('done', flush=True)\nif not os.fork(): time.sleep(600)")
    run = run_tool(("vendor-smi",), 20)
    assert (run.exit_code, run.stdout) == (0, "done\n")


def test_a_tool_that_prints_without_end(tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "OUTPUT_LIMIT", 2**20)
    tool("vendor-smi", "import sys\nwhile True: sys.stdout.write('y' * 65536)")
    run = run_tool(("vendor-smi",), 60)
    assert run.complaint == "vendor-smi: printed more than 1 MiB"
    assert len(run.stdout) == 2**20


def test_a_tool_that_prints_bytes(tool) -> None:
    tool("vendor-smi", "import sys; sys.stdout.buffer.write(bytes(range(256)))")
    assert "\ufffd" in run_tool(("vendor-smi",), 20).stdout


def test_a_tool_that_cannot_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vendor-smi"
    path.write_text("not a program")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "cannot be started" in (run_tool(("vendor-smi",), 20).complaint or "")


def test_files_and_folders_of_this_machine(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x" * 300_000)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe", stat.S_IRUSR)
    here = LiveEvidence(root=tmp_path)
    assert len(here.read("/a") or "") == 256 * 1024
    assert here.read("/pipe") is None
    assert here.read("/absent") is None
    assert here.read("/") is None
    assert here.read("/a\0") is None
    assert here.names("/") == ("a", "b", "pipe")
    assert here.names("/a") == ()
    assert (here.link("/b"), here.link("/a")) == ("a", None)


def test_a_recording_answers_as_the_machine_did(tmp_path: Path, tool) -> None:
    tool("vendor-smi", "import sys; print('fine'); sys.exit(3)")
    (tmp_path / "file").write_text("text")
    recorder = Recorder(LiveEvidence(root=tmp_path, tool_seconds=20))
    asked = [
        lambda each: each.read("/file"),
        lambda each: each.read("/absent"),
        lambda each: each.names("/"),
        lambda each: each.link("/file"),
        lambda each: each.run("vendor-smi", "-q"),
        lambda each: each.run("absent-smi"),
        lambda each: each.value("answer", lambda: {"a": [1, None]}),
    ]
    live = [question(recorder) for question in asked]
    assert [question(Recording(recorder.kept)) for question in asked] == live


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_recording_of_anything_answers(value: object) -> None:
    kept = {kind: {"x": value, '["x"]': value} for kind in ("files", "directories", "links", "tools", "values")}
    for recording in (Recording(kept), Recording({"files": value, "directories": value, "tools": value})):
        recording.read("x")
        recording.names("x")
        recording.link("x")
        assert recording.run("x").argv == ("x",)
        recording.value("x", dict)

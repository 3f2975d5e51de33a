"""Recordings as the tests want them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from velollm_core.hardware.recording import Recording

RECORDINGS = Path(__file__).parents[1] / "recordings" / "gpu"


@pytest.fixture
def recorded() -> Callable[[str, str], str]:
    """What a command of a recorded machine wrote to stdout."""

    def stdout(machine: str, name: str) -> str:
        text = (RECORDINGS / machine / f"{name}.txt").read_text()
        return text.partition("--- stdout\n")[2].rpartition("--- stderr")[0]

    return stdout


@pytest.fixture
def nvml() -> Callable[..., dict[str, object]]:
    """A recorded machine's NVML answers, in the form that `ask_nvml` writes today."""

    def answers(machine: str, state: str = "idle") -> dict[str, object]:
        found = json.loads((RECORDINGS / machine / "nvml.json").read_text())
        devices = [device.get(state, device["idle"]) for device in found["devices"]]
        for device in devices:
            processes = device["nvmlDeviceGetComputeRunningProcesses"]["value"]
            # The recorder wrote each process as the text of a Python dictionary.
            processes[:] = [json.loads(each.replace("'", '"')) if isinstance(each, str) else each for each in processes]
        return {**{name: found[name] for name in ("nvml", "driver", "cuda")}, "devices": devices}

    return answers


@pytest.fixture
def documented() -> Callable[[str], dict[str, object]]:
    """A machine that nobody here has, out of its vendor's documentation."""
    return lambda name: json.loads((RECORDINGS / "documented" / f"{name}.json").read_text())


@pytest.fixture
def machine() -> Callable[..., Recording]:
    """A machine made of the answers given: files, links and values by name, tools by their command line."""

    def make(
        files: dict[str, str] | None = None,
        values: dict[str, object] | None = None,
        tools: dict[tuple[str, ...], dict[str, object]] | None = None,
        links: dict[str, str] | None = None,
    ) -> Recording:
        files = files or {}
        directories: dict[str, list[str]] = {}
        for path in files:
            for parent in Path(path).parents:
                names = {Path(each).relative_to(parent).parts[0] for each in files if Path(each).is_relative_to(parent)}
                directories[str(parent)] = sorted(names)
        kept = {
            "files": files,
            "directories": directories,
            "links": links or {},
            "tools": {json.dumps(list(argv)): answer for argv, answer in (tools or {}).items()},
            "values": values or {},
        }
        return Recording(kept)

    return make

"""Recordings of a real Ollama 0.33.0, and what they say when read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from velollm_ollama.child import parse_command
from velollm_ollama.evidence import ChildReport

RECORDINGS = Path(__file__).parent / "recordings"


@pytest.fixture
def recordings() -> Path:
    """The folder of recordings."""
    return RECORDINGS


@pytest.fixture
def child_report() -> Callable[[str], ChildReport]:
    """A recorded child: its command line, environment, ``/props`` and ``/slots``."""

    def read(name: str) -> ChildReport:
        text = (RECORDINGS / name).read_text(encoding="utf-8")
        child = parse_command(text.splitlines()[0].removeprefix("cmdline: "))
        assert child is not None
        bodies = dict(part.split(" (child's port)\n< 200\n", 1) for part in text.split("\n> GET ")[1:])
        environment = dict(line.split("=", 1) for line in text.split("\nenviron:\n")[1].splitlines())
        slots = json.loads(bodies["/slots"].split("\n")[0])
        return ChildReport(child, environment).answered(json.loads(bodies["/props"]), slots)

    return read

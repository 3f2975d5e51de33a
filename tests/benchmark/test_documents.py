"""The JSON documents keep their shape: programs read them. A change here is a change of schema.

``python -m pytest tests/benchmark/test_documents.py`` with ``WRITE_SHAPES=1`` writes the shapes anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SHAPES = Path(__file__).parent / "shapes"
# What a machine has, and how long it takes there, differs; its document is `velollm detect`'s to keep.
ELSEWHERE = ("hardware", "plan.memory", "environment.hardware")
COMMANDS = {
    "benchmark": ["benchmark", "--model", "model.gguf"],
    "load": ["benchmark", "--model", "model.gguf", "--rate", "2", "--duration", "30s", "--slo", "ttft=1"],
    "against": ["benchmark", "--model", "model.gguf", "--against", "threads=1", "--budget", "40s"],
    "autopilot": ["autopilot", "model.gguf", "--budget", "40s"],
    "autopilot-dry": ["autopilot", "model.gguf", "--dry-run"],
}


def shape(value: Any, path: str = "") -> Iterator[str]:
    """Each path with its type; a list stands for its first element."""
    if path in ELSEWHERE:
        yield f"{path}: elsewhere"
    elif isinstance(value, dict):
        yield f"{path or '.'}: object"
        for name, part in value.items():
            yield from shape(part, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        yield f"{path}: list"
        if value:
            yield from shape(value[0], f"{path}[]")
    else:
        kind = {type(None): "null", bool: "boolean", int: "integer", float: "number", str: "text"}[type(value)]
        yield f"{path}: {kind}"


def same(found: list[str], kept: list[str]) -> None:
    """Equal but for values that may be unknown or whole here and not there."""
    loose = {"null", "integer", "number", "text", "object", "list", "boolean"}
    names = [{line.rpartition(": ")[0] for line in lines} for lines in (found, kept)]
    missing = {name for name in names[1] - names[0] if not _below_null(name, found)}
    extra = {name for name in names[0] - names[1] if not _below_null(name, kept)}
    assert (missing, extra) == (set(), set())
    assert {line.rpartition(": ")[2] for line in found} <= loose | {"elsewhere"}


def _below_null(name: str, lines: list[str]) -> bool:
    """Whether something above ``name`` is null, or an empty list, in ``lines``."""
    unknown = {line.rpartition(": ")[0] for line in lines if line.endswith((": null", ": list"))}
    return any(name.startswith((f"{each}.", f"{each}[")) for each in unknown)


@pytest.mark.parametrize("name", COMMANDS)
def test_documents_keep_their_shape(name: str, paced_cli: Any) -> None:
    done = paced_cli(*COMMANDS[name], "--json")
    assert done.code == 0, done.stderr
    found = sorted(set(shape(json.loads(done.stdout))))
    path = SHAPES / f"{name}.txt"
    if os.environ.get("WRITE_SHAPES"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(found) + "\n")
    same(found, path.read_text().splitlines())


def test_compare_keeps_its_shape(paced_cli: Any) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        assert paced_cli("benchmark", "--model", "model.gguf", "-o", name).code == 0
    done = paced_cli("compare", "a.jsonl", "b.jsonl", "--json")
    found = sorted(set(shape(json.loads(done.stdout))))
    path = SHAPES / "compare.txt"
    if os.environ.get("WRITE_SHAPES"):
        path.write_text("\n".join(found) + "\n")
    same(found, path.read_text().splitlines())

"""The command as its users run it, from a machine to a script: in processes of its own, against a fake Ollama."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from velollm_ollama.catalogue import why_not
from velollm_ollama.readers import parse_settings
from velollm_ollama.testing import FakeOllama
from velollm_ollama.version import Version

from velollm_core import __version__
from velollm_core.cli import COMMANDS
from velollm_core.testing import Outcome, run_cli, unused_url

STATES: tuple[dict[str, str], ...] = (
    {},
    {"OLLAMA_NUM_PARALLEL": "2x", "OLLAMA_FLASH_ATTENTION": "off"},
    {"OLLAMA_KV_CACHE_TYPE": "int8"},
)


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    """An Ollama of 0.33 with one small model."""
    with FakeOllama() as fake:
        yield fake


def velollm(home: Path, *words: str | Path, url: str | None = None) -> Outcome:
    """Run the command with the Ollama plugin alone, reaching only ``url``."""
    places = {"VELOLLM_ONLY_PLUGINS": "ollama", "VELOLLM_OLLAMA_URL": url or unused_url()}
    return run_cli(*words, environment=places, home=home, folder=home)


def test_detect_command(tmp_path: Path, ollama: FakeOllama) -> None:
    done = velollm(tmp_path, "detect", url=ollama.url)
    assert done.code == 0, done.stderr
    assert "ollama" in done.stdout
    assert "0.33.0" in done.stdout


def test_detect_json_structure(tmp_path: Path, ollama: FakeOllama) -> None:
    done = velollm(tmp_path, "detect", "--json", url=ollama.url)
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "velollm.detect/1"
    hardware = found["hardware"]
    assert hardware.keys() >= {"platform", "cpu", "memory", "gpus", "notes"}
    assert isinstance(hardware["memory"]["total"], int)
    assert isinstance(hardware["gpus"], list)
    assert "ollama" in json.dumps(found["backends"])


def test_optimize_dry_run(tmp_path: Path, ollama: FakeOllama) -> None:
    words = ("optimize", "--backend", "ollama", "--model", "tiny", "--context", "1024", "--dry-run")
    done = velollm(tmp_path, *words, url=ollama.url)
    assert done.code == 0, done.stderr
    assert "num_ctx" in done.stdout
    assert "OLLAMA_NUM_PARALLEL" in done.stdout
    assert list(ollama.models) == ["tiny:latest"]
    assert not ollama.seen("POST /api/create")


@pytest.mark.parametrize("environment", STATES)
def test_optimize_output_file(tmp_path: Path, ollama: FakeOllama, environment: dict[str, str]) -> None:
    ollama.start_again(environment)
    out = tmp_path / "config.sh"
    done = velollm(tmp_path, "optimize", "--backend", "ollama", "--model", "tiny", "-o", out, url=ollama.url)
    assert done.code == 0, done.stderr
    script = out.read_text(encoding="utf-8")
    settings = parse_settings(script, ".sh")
    assert settings["OLLAMA_NUM_PARALLEL"] == "1"
    assert all(why_not(name, Version(0, 33, 0)) is None for name in settings)
    assert re.search(r"^PARAMETER num_ctx \d+$", script, re.MULTILINE)


def test_optimize_hardware_detection(tmp_path: Path, ollama: FakeOllama) -> None:
    detected = velollm(tmp_path, "detect", "--json", url=ollama.url).stdout
    (tmp_path / "machine.json").write_text(detected, encoding="utf-8")
    words = ("optimize", "--backend", "ollama", "--model", "tiny", "--context", "1024", "--json")
    here = velollm(tmp_path, *words, url=ollama.url)
    there = velollm(tmp_path, *words, "--hardware", "machine.json", url=ollama.url)
    assert here.code == there.code == 0, here.stderr + there.stderr
    settings = [json.loads(done.stdout)["plan"]["settings"] for done in (here, there)]
    assert settings[0] == settings[1]


def test_help(tmp_path: Path) -> None:
    done = velollm(tmp_path, "--help")
    assert done.code == 0
    assert all(name in done.stdout for name in (*COMMANDS, "ollama"))


def test_version(tmp_path: Path) -> None:
    done = velollm(tmp_path, "--version")
    assert done.code == 0
    assert __version__ in done.stdout


def test_benchmark_without_ollama(tmp_path: Path) -> None:
    done = velollm(tmp_path, "benchmark", "--backend", "ollama", "--model", "tiny")
    assert done.code == 1
    assert done.stdout == ""
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

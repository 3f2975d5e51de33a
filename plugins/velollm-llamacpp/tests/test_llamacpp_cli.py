"""`velollm llamacpp`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from velollm_llamacpp.cli import command

from velollm_core.models.files import read_model


def run(*words: str) -> str:
    done = CliRunner().invoke(command, ["make-test-model", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_example_of_the_help_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    epilog = command.commands["make-test-model"].epilog or ""
    words = epilog.removeprefix("Example: velollm llamacpp make-test-model ").split()
    assert run(*words) == "Wrote small.gguf: 6.31 MiB.\n"
    assert read_model(tmp_path / "small.gguf").architecture == "llama"


def test_a_directory_gets_a_name_of_its_own(tmp_path: Path) -> None:
    said = json.loads(run(str(tmp_path), "--draft", "--json"))
    assert said["schema"] == "velollm.llamacpp.make-test-model/1"
    assert said["path"] == str(tmp_path / "velollm-test-small-draft.gguf")
    assert said["bytes"] == Path(said["path"]).stat().st_size == 1_889_856


def test_two_places_are_wrong_usage(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, ["make-test-model", str(tmp_path), "-o", str(tmp_path / "m.gguf")])
    assert done.exit_code == 2
    assert "not both" in done.output


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = [sys.executable, "-m", "velollm_core", "llamacpp", "make-test-model", "-o", str(tmp_path / "file/m.gguf")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_help_imports_nothing_heavy() -> None:
    heavy = {"numpy", "gguf", "aiohttp", "xllamacpp", "rich"}
    script = f"import sys, velollm_llamacpp.cli; print(*{heavy!r} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []

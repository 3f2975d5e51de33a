"""`velollm undo`: what was applied is listed, and taken back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from velollm_core.applying import Applied
from velollm_core.commands.undo import command
from velollm_core.config import state_dir
from velollm_core.errors import VeloError
from velollm_core.history import applied_last, remember
from velollm_core.testing import install_plugin

PLUGIN = """
import os
from pathlib import Path
from velollm_core.backends.change import Change
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError
from velollm_core.hookspecs import hookimpl

class Forgetful:
    def __init__(self, name):
        self.name = name
    async def status(self):
        return Status(reachable=True)
    def stream(self, request):
        raise NotImplementedError
    async def close(self):
        pass

class Fake(Forgetful):
    def changes(self):
        kept = [line.split() for line in Path("changes").read_text().splitlines()]
        return [Change(key, f"model {key}", "http://x", restarts=how == "restart") for key, how in kept]
    async def undo(self, change):
        kept = Path("changes").read_text().splitlines()
        how = next(line.split()[1] for line in kept if line.split()[0] == change.key)
        if how == "stuck":
            raise BackendError("fake: the server says no")
        Path("changes").write_text("".join(f"{line}\\n" for line in kept if line.split()[0] != change.key))

@hookimpl
def detect(hardware):
    return [Fake("fake"), Forgetful("forgetful")]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose file ``changes`` is the record of the only plugin's backend."""
    # A name of its own: what another test has imported under one stays imported.
    monkeypatch.syspath_prepend(str(install_plugin(tmp_path / "site", "undoing", PLUGIN)))
    monkeypatch.setenv("VELOLLM_ONLY_PLUGINS", "undoing")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "changes").write_text("one model\ntwo model\n")
    return tmp_path


def undo(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), env={"COLUMNS": "160"})


def test_everything_is_taken_back_and_recorded(folder: Path) -> None:
    result = undo()
    assert result.exit_code == 0, result.output
    assert result.stdout == "Took back: fake: model one (http://x)\nTook back: fake: model two (http://x)\n"
    assert (folder / "changes").read_text() == ""
    entries = [json.loads(line) for line in (state_dir() / "history.jsonl").read_text().splitlines()]
    assert [entry["undone"]["key"] for entry in entries] == ["one", "two"]
    assert undo().stdout == "Nothing that VeloLLM applied is in force here.\n"


def test_a_dry_run_lists_and_changes_nothing(folder: Path) -> None:
    before = (folder / "changes").read_text()
    assert undo("--dry-run").stdout.startswith("Would take back: fake: model one")
    found = json.loads(undo("--dry-run", "--json").stdout)
    assert found["schema"] == "velollm.undo/1"
    assert [each["change"]["key"] for each in found["changes"]] == ["one", "two"]
    assert (found["undone"], found["dry_run"]) == ([], True)
    assert (folder / "changes").read_text() == before


def test_one_that_fails_costs_only_itself(folder: Path) -> None:
    (folder / "changes").write_text("one stuck\ntwo model\n")
    result = undo()
    assert isinstance(result.exception, VeloError)
    assert str(result.exception) == "1 of 2 changes are still in force: fake: the server says no"
    assert result.stdout.splitlines()[0].startswith("Still in force: fake: model one")
    assert (folder / "changes").read_text() == "one stuck\n"


def test_a_restart_must_be_allowed(folder: Path) -> None:
    (folder / "changes").write_text("one restart\n")
    result = undo()
    assert isinstance(result.exception, VeloError)
    assert "--yes allows it" in str(result.exception)
    assert (folder / "changes").read_text() == "one restart\n"
    assert undo("--yes", "--json").exit_code == 0
    assert (folder / "changes").read_text() == ""


def test_backends_that_keep_nothing_say_so_once_they_were_set(folder: Path) -> None:
    (folder / "changes").write_text("")
    for name in ("forgetful", "gone"):
        remember(Applied(name, "m", (), rolled_back=False))
    with (state_dir() / "history.jsonl").open("a") as file:
        file.write("[1]\nnot json\n")
    assert set(applied_last()) == {"forgetful", "gone"}
    lines = undo().stdout.splitlines()
    assert lines[1] == "forgetful: keeps no settings; they ended with the server that was started with them"
    assert lines[2].endswith("but its plugin is not here; install it to take that back")
    assert undo("--backend", "forgetful").stdout.splitlines()[1:] == lines[1:2]


def test_wrong_usage(folder: Path) -> None:
    result = undo("--backend", "other")
    assert "here are: fake, forgetful" in str(result.exception)
    assert undo("--url", "http://x").exit_code == 2

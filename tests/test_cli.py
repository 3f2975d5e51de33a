"""The door: names from metadata, errors to exit codes, nothing that a plugin breaks."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from velollm_core import cli
from velollm_core.errors import VeloError


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "velollm_core", *arguments], capture_output=True, text=True, timeout=60
    )


def test_help_lists_every_command() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in cli.COMMANDS)
    assert done.stderr == ""


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run("optimise")
    assert done.returncode == 2
    assert "No such command 'optimise'" in done.stderr


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch):
    """Put a command in the place of `plugins`."""

    def install(raises: Exception) -> None:
        @click.command()
        def failing() -> None:
            raise raises

        monkeypatch.setattr(cli, "_object", lambda _: failing)
        monkeypatch.setattr(sys, "argv", ["velollm", "plugins"])

    return install


def test_an_error_of_ours_is_one_line_and_exit_code_1(command, capsys) -> None:
    command(VeloError("model.gguf: magic is 'JUNK';\n give a GGUF file"))
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert capsys.readouterr().err == "velollm: model.gguf: magic is 'JUNK'; give a GGUF file\n"


def test_the_traceback_is_there_for_who_asks(command, monkeypatch) -> None:
    monkeypatch.setenv("VELOLLM_RAISE", "1")
    command(VeloError("broken"))
    with pytest.raises(VeloError):
        cli.main()


def test_a_programming_error_is_not_hidden(command) -> None:
    command(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_a_closed_pipe_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m velollm_core plugins --json | true",
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("no_such_module:command", "ModuleNotFoundError"),
        ("os:sep", "no click command"),
        ("os:nothing", "AttributeError"),
    ],
)
def test_a_broken_command_breaks_no_other(monkeypatch, value: str, says: str) -> None:
    broken = EntryPoint("broken", value, "velollm.commands")
    monkeypatch.setattr(cli, "_entry_points", lambda: iter([broken]))
    runner = CliRunner()
    listed = runner.invoke(cli.velollm, ["--help"])
    assert listed.exit_code == 0
    assert "broken" in listed.output
    failed = runner.invoke(cli.velollm, ["broken"])
    assert failed.exit_code == 1
    assert says in failed.output


def test_blocking_a_plugin_hides_its_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "velollm_core", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        env={"VELOLLM_BLOCK_PLUGINS": "llamacpp", "PATH": str(Path(sys.executable).parent)},
    )
    assert "llama.cpp" not in done.stdout

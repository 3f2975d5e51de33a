"""Where a server's environment comes from, written and put back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from velollm_ollama.channel import Channel, Kind, find_channel, run_command
from velollm_ollama.readers import parse_settings

from velollm_core.errors import VeloError

SETTINGS = {"OLLAMA_NUM_PARALLEL": "2", "OLLAMA_KEEP_ALIVE": "30m"}


class Commands:
    """Stands in for the system's own commands."""

    def __init__(self, answers: dict[str, str] | None = None) -> None:
        self.answers = answers or {}
        self.given: list[str] = []

    def __call__(self, command: Sequence[str]) -> str:
        self.given.append(" ".join(command))
        return self.answers.get(" ".join(command), "")


@pytest.mark.parametrize(
    ("group", "kind"),
    [
        ("0::/system.slice/ollama.service", "systemd"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service", "manual"),
        ("0::/system.slice/docker-0123.scope", "docker"),
        ("0::/kubepods/burstable/pod1", "docker"),
        ("0::/user.slice/session-2.scope", "manual"),
    ],
)
def test_a_linux_server_is_known_by_its_control_group(tmp_path: Path, group: str, kind: Kind) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(group, encoding="utf-8")
    assert find_channel(7, here=True, system="Linux", root=tmp_path).kind == kind
    assert find_channel(8, here=True, system="Linux", root=tmp_path).kind == "manual"


def test_other_systems_and_other_machines() -> None:
    assert find_channel(7, here=True, system="Darwin").kind == "macos"
    assert find_channel(None, here=True, system="Windows").kind == "windows"
    assert find_channel(None, here=False).kind == "remote"


def test_a_drop_in_is_written_whole_and_put_back(tmp_path: Path) -> None:
    path = tmp_path / "ollama.service.d" / "velollm.conf"
    channel = Channel("systemd", path, Commands())
    assert channel.writable
    assert channel.read(()) == {}
    channel.write(SETTINGS)
    assert parse_settings(path.read_text(encoding="utf-8"), ".conf") == SETTINGS
    held = channel.read(tuple(SETTINGS))
    channel.write({"OLLAMA_DEBUG": "1"})
    channel.restore(("OLLAMA_DEBUG",), held)
    assert parse_settings(path.read_text(encoding="utf-8"), ".conf") == SETTINGS
    channel.restore(tuple(SETTINGS), {})
    assert not path.exists()
    assert not list(tmp_path.rglob("*.part"))


def test_a_service_is_restarted_by_its_own_commands(tmp_path: Path) -> None:
    commands = Commands()
    Channel("systemd", tmp_path / "x.conf", commands).restart()
    assert commands.given == ["systemctl daemon-reload", "systemctl restart ollama"]
    with pytest.raises(VeloError, match="whoever started it"):
        Channel("manual").restart()


def test_a_directory_that_may_not_be_written_is_said() -> None:
    channel = Channel("systemd", Path("/proc/none/velollm.conf"))
    with pytest.raises(VeloError, match="cannot be written"):
        channel.write(SETTINGS)


def test_macos_and_windows_use_their_own_commands() -> None:
    commands = Commands({"launchctl getenv OLLAMA_NUM_PARALLEL": "4"})
    channel = Channel("macos", run=commands)
    held = channel.read(tuple(SETTINGS))
    assert held == {"OLLAMA_NUM_PARALLEL": "4"}
    channel.write(SETTINGS)
    channel.restore(tuple(SETTINGS), held)
    assert commands.given[-3:] == [
        "launchctl setenv OLLAMA_KEEP_ALIVE 30m",
        "launchctl setenv OLLAMA_NUM_PARALLEL 4",
        "launchctl unsetenv OLLAMA_KEEP_ALIVE",
    ]
    commands = Commands()
    channel = Channel("windows", run=commands)
    channel.write({"OLLAMA_DEBUG": "1"})
    channel.restore(("OLLAMA_DEBUG",), {})
    assert commands.given == ["setx OLLAMA_DEBUG 1", r"reg delete HKCU\Environment /v OLLAMA_DEBUG /f"]


@pytest.mark.parametrize("kind", ["systemd", "macos", "windows", "docker", "manual", "remote"])
def test_the_exact_commands_are_said_for_every_kind(kind: Kind) -> None:
    steps = Channel(kind).instructions({"OLLAMA_NUM_PARALLEL": "2"})
    assert any("OLLAMA_NUM_PARALLEL" in step for step in steps)
    if kind == "systemd":
        assert "[Service]" in steps[1]
        assert steps[-1] == "sudo systemctl restart ollama"


@pytest.mark.parametrize("kind", ["docker", "manual", "remote"])
def test_what_velollm_cannot_write_it_does_not_pretend_to(kind: Kind) -> None:
    channel = Channel(kind)
    assert not channel.writable
    assert channel.read(("A",)) == {}
    with pytest.raises(VeloError, match="only from whoever starts it"):
        channel.write(SETTINGS)
    channel.restore((), {})


def test_a_command_that_fails_is_one_line() -> None:
    assert run_command(["echo", "yes"]) == "yes"
    with pytest.raises(VeloError, match="false"):
        run_command(["false"])
    with pytest.raises(VeloError, match="no-such-command"):
        run_command(["no-such-command"])

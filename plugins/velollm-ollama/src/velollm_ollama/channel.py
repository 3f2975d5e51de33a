"""The place that a server's environment comes from: how it is written, restored, and taken up by a restart."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from attrs import field, frozen

from velollm_core.errors import VeloError
from velollm_ollama import writers

Kind = Literal["systemd", "macos", "windows", "docker", "manual", "remote"]
Run = Callable[[Sequence[str]], str]

DROP_IN = Path("/etc/systemd/system/ollama.service.d/velollm.conf")


def run_command(command: Sequence[str]) -> str:
    """The output of ``command``; raises `VeloError` with its last line where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VeloError(f"{' '.join(command)}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise VeloError(f"{' '.join(command)}: {said[-1] if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()


@frozen
class Channel:
    """One way to reach a server's environment. ``path`` is the drop-in of a systemd service.

    VeloLLM writes to systemd's drop-in (where it may), launchctl and the Windows user environment; for the others it
    can only say what to do.
    """

    kind: Kind
    path: Path = DROP_IN
    run: Run = field(default=run_command, eq=False)

    @property
    def writable(self) -> bool:
        """Whether `write` can work here."""
        if self.kind == "systemd":
            parent = next((each for each in self.path.parents if each.exists()), Path("/"))
            return os.access(self.path if self.path.exists() else parent, os.W_OK)
        return self.kind in ("macos", "windows")

    @property
    def restartable(self) -> bool:
        """Whether `restart` can work here: only a service is VeloLLM's to restart."""
        return self.kind == "systemd" and self.writable

    def instructions(self, settings: Mapping[str, str]) -> tuple[str, ...]:
        """The exact commands that put ``settings`` in force, for a person to give."""
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
        if self.kind == "systemd":
            write = f"printf %s {shlex.quote(writers.systemd(settings))} | sudo tee {self.path}"
            return (
                f"sudo mkdir -p {self.path.parent}",
                write,
                *(f"sudo {' '.join(each)}" for each in self._restarts()),
            )
        if self.kind == "macos":
            commands = [f"launchctl setenv {name} {shlex.quote(value)}" for name, value in settings.items()]
            return (*commands, "osascript -e 'quit app \"Ollama\"'", "open -a Ollama")
        if self.kind == "windows":
            return (*writers.windows(settings).splitlines()[1:], "quit Ollama in the tray and start it again")
        if self.kind == "docker":
            return (f"docker run … {writers.docker(settings)} ollama/ollama   # the container must be made anew",)
        return (f"{exports} ollama serve   # in place of the server that runs now",)

    def read(self, names: Sequence[str]) -> dict[str, str]:
        """What the channel holds now, for `restore`: the drop-in's text under ``""``, or values by name."""
        if self.kind == "systemd":
            return {"": self.path.read_text(encoding="utf-8")} if self.path.exists() else {}
        if self.kind == "macos":
            values = {name: self.run(["launchctl", "getenv", name]) for name in names}
            return {name: value for name, value in values.items() if value}
        if self.kind == "windows":
            return {name: os.environ[name] for name in names if name in os.environ}
        return {}

    def write(self, settings: Mapping[str, str]) -> None:
        """Set ``settings``; a server that runs does not see them before its restart."""
        if self.kind == "systemd":
            _write_whole(self.path, writers.systemd(settings))
        elif self.kind == "macos":
            for name, value in settings.items():
                self.run(["launchctl", "setenv", name, value])
        elif self.kind == "windows":
            for name, value in settings.items():
                self.run(["setx", name, value])
        else:
            raise VeloError(f"a server started by {self.kind} gets its environment only from whoever starts it")

    def restore(self, names: Sequence[str], before: Mapping[str, str]) -> None:
        """Put back what `read` gave for ``names``."""
        if self.kind == "systemd":
            if "" in before:
                _write_whole(self.path, before[""])
            else:
                self.path.unlink(missing_ok=True)
            return
        for name in names:
            if name in before:
                self.write({name: before[name]})
            elif self.kind == "macos":
                self.run(["launchctl", "unsetenv", name])
            elif self.kind == "windows":
                self.run(["reg", "delete", r"HKCU\Environment", "/v", name, "/f"])

    def restart(self) -> None:
        """Restart the service; raises `VeloError` where that fails or is not ours to do."""
        if not self.restartable:
            raise VeloError(f"a server started by {self.kind} is restarted by whoever started it")
        for command in self._restarts():
            self.run(command)

    def _restarts(self) -> tuple[tuple[str, ...], ...]:
        return (("systemctl", "daemon-reload"), ("systemctl", "restart", "ollama"))


def find_channel(pid: int | None, *, here: bool, system: str | None = None, root: Path = Path("/proc")) -> Channel:
    """How the server with ``pid`` was started; ``here`` is False for one on another machine."""
    if not here:
        return Channel("remote")
    name = system or platform.system()
    if name == "Darwin":
        return Channel("macos")
    if name == "Windows":
        return Channel("windows")
    if pid is None:
        return Channel("systemd" if DROP_IN.parent.parent.joinpath("ollama.service").exists() else "manual")
    try:
        groups = (root / str(pid) / "cgroup").read_text(encoding="utf-8")
    except OSError:
        return Channel("manual")
    if "ollama.service" in groups and "user@" not in groups:
        return Channel("systemd")
    containers = ("docker", "containerd", "libpod", "kubepods")
    return Channel("docker" if any(word in groups for word in containers) else "manual")


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise VeloError(f"{path}: cannot be written ({error.strerror or error})") from error

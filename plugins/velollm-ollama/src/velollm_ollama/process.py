"""Ollama's processes on this machine, read and never touched."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
from attrs import field, frozen

from velollm_core.errors import VeloError
from velollm_ollama.child import Child, parse_command
from velollm_ollama.host import parse_host
from velollm_ollama.lint import is_ours


@frozen
class ServerProcess:
    """One ``ollama serve``. ``environment`` None could not be read: another user's process."""

    pid: int
    environment: Mapping[str, str] | None = None
    children: tuple[ChildProcess, ...] = ()


@frozen
class ChildProcess:
    """One llama-server below it; ``environment`` is empty where it could not be read."""

    pid: int
    child: Child
    environment: Mapping[str, str] = field(factory=dict)


def environment_of(pid: int) -> dict[str, str]:
    """Ollama's variables in the environment that ``pid`` was started with; raises `VeloError` where it is closed."""
    try:
        return _ours(psutil.Process(pid).environ())
    except psutil.NoSuchProcess as error:
        raise VeloError(f"process {pid}: there is none") from error
    except (psutil.Error, OSError) as error:
        raise VeloError(f"process {pid}: its environment belongs to another user; ask as that user or root") from error


def find_server(port: int) -> ServerProcess | None:
    """The ``ollama serve`` that listens on ``port``; one that hides its environment counts if it is the only one."""
    servers = [_server(process) for process in psutil.process_iter() if _is_server(process)]
    for server in servers:
        if server.environment is not None and _port(server.environment) == port:
            return server
    hidden = [server for server in servers if server.environment is None]
    return hidden[0] if len(hidden) == 1 and len(servers) == 1 else None


def _is_server(process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except (psutil.Error, OSError):
        return False
    program = command[0].replace("\\", "/").rsplit("/", 1)[-1].lower().removesuffix(".exe") if command else ""
    return program == "ollama" and "serve" in command[1:]


def _server(process: psutil.Process) -> ServerProcess:
    try:
        environment: dict[str, str] | None = _ours(process.environ())
    except (psutil.Error, OSError):
        environment = None
    return ServerProcess(process.pid, environment, _children(process))


def _children(process: psutil.Process) -> tuple[ChildProcess, ...]:
    try:
        below = process.children(recursive=True)
    except (psutil.Error, OSError):
        return ()
    found = []
    for candidate in below:
        try:
            child = parse_command(candidate.cmdline())
            environment = _ours(candidate.environ()) if child else {}
        except (psutil.Error, OSError):
            continue
        if child is not None:
            found.append(ChildProcess(candidate.pid, child, environment))
    return tuple(found)


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if is_ours(name)}


def _port(environment: Mapping[str, str]) -> int:
    port = parse_host(environment.get("OLLAMA_HOST", "")).port
    return int(port) if port.isdigit() else 0

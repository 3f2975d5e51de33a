"""Gather the evidence: ask the server, look at its process and its child, read its log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from velollm_core.backends.client import HttpClient, Timeouts
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_ollama.config import OllamaConfig
from velollm_ollama.evidence import ChildReport, Evidence, LoadedModel
from velollm_ollama.log import read_log
from velollm_ollama.log_source import find_log, read_log_file
from velollm_ollama.process import ChildProcess, ServerProcess, find_server

if TYPE_CHECKING:
    from velollm_ollama.backend import OllamaBackend
    from velollm_ollama.log import ServerLog

CHILD_SECONDS = 2.0


async def gather(backend: OllamaBackend, log: str | None = None) -> Evidence:
    """Everything that can be read of the server without changing it; ``log`` names a file, ``-`` is standard input.

    Raises:
        VeloError: the named log cannot be read.
        BackendError: the server answers nonsense.
    """
    address = backend.client.address
    here = address.is_loopback
    server = await asyncio.to_thread(find_server, address.port) if here else None
    text = await asyncio.to_thread(_log_text, log, here)
    said = read_log(text[0]) if text else None
    own = said if said is not None and (log is not None or _is_about(said, address.port)) else None
    version = backend.version or (own.version if own else None)
    process = None
    if server is not None and server.environment is not None:
        process = OllamaConfig.from_env(server.environment, version, f"process {server.pid}")
    return Evidence(
        version=version,
        log=own,
        log_source=text[1] if text else "server log",
        process=process,
        children=await _children(server),
        loaded=await _loaded(backend),
        shell=OllamaConfig.from_env(version=version),
        notes=_notes(server, own, here=here),
    )


def _log_text(log: str | None, here: bool) -> tuple[str, str] | None:
    if log is not None:
        return read_log_file(log)
    return find_log() if here else None


def _is_about(log: ServerLog, port: int) -> bool:
    """Whether a log that was merely found is that of the server on ``port``."""
    return bool(log.values) and (log.address is None or log.address.endswith(f":{port}"))


async def _loaded(backend: OllamaBackend) -> tuple[LoadedModel, ...]:
    """What is loaded; nothing where the server does not say."""
    try:
        return await backend.loaded()
    except BackendUnreachable:
        raise
    except BackendError:
        return ()


async def _children(server: ServerProcess | None) -> tuple[ChildReport, ...]:
    if server is None:
        return ()
    return tuple(await asyncio.gather(*(_child(child) for child in server.children)))


async def _child(process: ChildProcess) -> ChildReport:
    report = ChildReport(process.child, process.environment)
    if process.child.port is None:
        return report
    url = f"http://127.0.0.1:{process.child.port}"
    client = HttpClient("llama-server of ollama", url, None, Timeouts(connect=CHILD_SECONDS), {})
    try:
        props = await client.read_json("GET", "/props", seconds=CHILD_SECONDS)
        slots = await client.read_json("GET", "/slots", seconds=CHILD_SECONDS)
    except BackendError:
        return report
    finally:
        await client.close()
    return report.answered(props, slots) if isinstance(props, Mapping) else report


def _notes(server: ServerProcess | None, log: ServerLog | None, *, here: bool) -> tuple[str, ...]:
    if not here:
        return ("the server is on another machine: its environment and log cannot be read from here",)
    notes = []
    if server is None:
        notes.append("no `ollama serve` of this machine listens there: its environment cannot be read")
    elif server.environment is None:
        notes.append(f"process {server.pid} belongs to another user: as root or that user more can be read")
    if log is None:
        notes.append("no start of this server in any log found: name one with --log, or pipe it to --log -")
    return tuple(notes)

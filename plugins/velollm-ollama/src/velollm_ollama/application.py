"""Apply settings, prove them, and take them back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.errors import BackendError, VeloError
from velollm_ollama.applied import Applied, load_applied, save_applied
from velollm_ollama.channel import DROP_IN, Channel, find_channel
from velollm_ollama.config import OllamaConfig
from velollm_ollama.derived import derive, drop, exists, names_of
from velollm_ollama.gather import gather
from velollm_ollama.parameters import check_parameters
from velollm_ollama.process import find_server
from velollm_ollama.read_back import differences, in_force
from velollm_ollama.settings import as_text, environment_of, parameters_of
from velollm_ollama.writers import check_writable

if TYPE_CHECKING:
    from velollm_core.backends.setting import Setting, Value
    from velollm_ollama.backend import OllamaBackend
    from velollm_ollama.evidence import Evidence


async def apply(
    backend: OllamaBackend,
    model: str,
    settings: Sequence[Setting],
    *,
    may_restart: bool,
    channel: Channel | None = None,
) -> Applied:
    """Put ``settings`` in force for ``model`` and read them back; what was applied before is taken back first.

    Parameters become a derived model. Environment variables that the server does not run with already need a
    restart, which is done only for a service, and only where ``may_restart`` allows it.

    Raises:
        VeloError: a setting that this version does not have, or would misread.
        BackendError: something could not be applied or reads back differently; the old state is back then.
    """
    await roll_back(backend, channel)
    evidence = await gather(backend)
    environment, parameters = environment_of(settings), parameters_of(settings)
    check_writable(environment, evidence.version)
    check_parameters(parameters)
    pending = {name: text for name, text in environment.items() if not _settled(name, text, evidence)}
    channel = channel or _channel(backend)
    _refuse(backend, evidence, channel, pending, may_restart=may_restart, loads=bool(parameters))
    applied = Applied(backend.url)
    if parameters:
        name = names_of(model).name
        applied = Applied(backend.url, model, name, existed=await exists(backend, name))
    try:
        if pending:
            applied = await _write(backend, channel, pending, applied)
        if parameters:
            save_applied(backend.url, applied)
            await derive(backend, model, parameters)
        await _verify(backend, applied.name or model, environment, parameters)
    except BaseException:
        with suppress(VeloError):
            await roll_back(backend, channel)
        raise
    return applied


async def without_restart(backend: OllamaBackend, settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings that can be put in force as the server runs now."""
    evidence = await gather(backend)
    return tuple(
        setting
        for setting in settings
        if setting.where != "env" or _settled(setting.name, as_text(setting.value), evidence)
    )


async def roll_back(backend: OllamaBackend, channel: Channel | None = None) -> Applied | None:
    """Take back what is recorded for this server, whoever applied it; None where nothing is.

    The record is made before each change and forgotten last, so an interrupted run can be taken back too.
    """
    applied = load_applied(backend.url)
    if applied is None:
        return None
    used = channel or Channel(applied.channel or "manual", Path(applied.path or DROP_IN))  # type: ignore[arg-type]
    if applied.environment:
        used.restore(tuple(applied.environment), applied.before)
        if used.restartable:
            used.restart()
            await backend.wait_ready()
    if applied.name:
        await drop(backend, names_of(applied.base), existed=applied.existed)
    save_applied(backend.url, None)
    return applied


async def _write(backend: OllamaBackend, channel: Channel, pending: Mapping[str, str], applied: Applied) -> Applied:
    before = channel.read(tuple(pending))
    changed = evolve(applied, channel=channel.kind, path=str(channel.path), environment=dict(pending), before=before)
    save_applied(backend.url, changed)
    channel.write(pending)
    channel.restart()
    await backend.wait_ready()
    return changed


async def _verify(
    backend: OllamaBackend, model: str, environment: Mapping[str, str], parameters: Mapping[str, Value]
) -> None:
    wrong = differences(environment, parameters, await gather(backend), model)
    if wrong:
        raise BackendError(f"{backend.client} reads back differently: {'; '.join(wrong)}", kind="not_applied")


def _settled(name: str, text: str, evidence: Evidence) -> bool:
    """Whether nothing needs to be done: it is in force, or it is the version's default and nothing says otherwise."""
    known = in_force(name, text, evidence)
    if known is not None:
        return known
    return in_force(name, text, evolve(evidence, process=_nothing_set(evidence), log=None)) is True


def _nothing_set(evidence: Evidence) -> OllamaConfig:
    return OllamaConfig.from_env({}, evidence.version, "nothing")


def _channel(backend: OllamaBackend) -> Channel:
    address = backend.client.address
    server = find_server(address.port) if address.is_loopback else None
    return find_channel(server.pid if server else None, here=address.is_loopback)


def _refuse(
    backend: OllamaBackend,
    evidence: Evidence,
    channel: Channel,
    pending: Mapping[str, str],
    *,
    may_restart: bool,
    loads: bool,
) -> None:
    """Say what VeloLLM must not do by itself."""
    if pending and not (may_restart and channel.restartable):
        names = ", ".join(f"{name}={text}" for name, text in pending.items())
        steps = " && ".join(channel.instructions(pending))
        raise BackendError(f"{backend.client} must be restarted for {names}: {steps}", kind="needs_restart")
    busy = sum(child.busy or 0 for child in evidence.children)
    if (pending or loads) and busy and not may_restart:
        raise BackendError(f"{backend.client} answers {busy} requests now, and a load would hold them up", kind="busy")

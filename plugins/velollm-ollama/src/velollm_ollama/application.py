"""Apply settings, prove them, and take them back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.errors import BackendError, VeloError
from velollm_ollama.applied import Applied, forget_applied, load_applied, save_applied
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
) -> str | None:
    """Put ``settings`` in force for ``model`` and read them back; the derived model's name, None without parameters.

    Parameters become a derived model, in place of one that was applied before. Environment variables that the server
    does not run with already need a restart, which is done only for a service, and only where ``may_restart`` allows.

    Raises:
        VeloError: a setting that this version does not have, or would misread.
        BackendError: something could not be applied or reads back differently; the old state is back then.
    """
    environment, parameters = environment_of(settings), parameters_of(settings)
    channel = channel or _channel(backend)
    evidence = await gather(backend)
    check_writable(environment, evidence.version)
    check_parameters(parameters)
    pending = {name: text for name, text in environment.items() if not _settled(name, text, evidence)}
    _refuse(backend, evidence, channel, pending, may_restart=may_restart, loads=bool(parameters))

    before = load_applied(backend.url).get("")
    left = before is not None and not before.environment.keys() <= environment.keys()
    changes = bool(pending) or (left and may_restart and channel.restartable)
    try:
        if changes:
            await _write(backend, channel, environment, before)
        return await _make(backend, model, parameters, partial(_verify, backend, model, environment, parameters))
    except BaseException:
        if changes:
            with suppress(VeloError):
                await _rewrite(backend, channel, environment, before)
        raise


async def without_restart(backend: OllamaBackend, settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The settings that can be put in force as the server runs now."""
    evidence = await gather(backend)
    return tuple(
        setting
        for setting in settings
        if setting.where != "env" or _settled(setting.name, as_text(setting.value), evidence)
    )


async def roll_back(backend: OllamaBackend, channel: Channel | None = None, model: str | None = None) -> list[Applied]:
    """Take back what is recorded for this server, whoever applied it; with ``model`` only that model and the variables.

    The record is made before each change and forgotten last, so an interrupted run can be taken back too.
    """
    records = load_applied(backend.url)
    taken = [records[base] for base in sorted(records) if base in ("", model) or model is None]
    for applied in taken:
        await take_back(backend, applied, channel)
    return taken


async def take_back(backend: OllamaBackend, applied: Applied, channel: Channel | None = None) -> None:
    """Return to what was before one recorded change, and forget it."""
    if applied.environment:
        used = channel or channel_of(applied)
        used.restore(tuple(applied.environment), applied.before)
        await _restart(backend, used)
    if applied.name:
        await drop(backend, names_of(applied.base), existed=applied.existed)
    forget_applied(applied)


def channel_of(applied: Applied) -> Channel:
    """The place that a change of variables was written to."""
    return Channel(applied.channel, Path(applied.path or DROP_IN))  # type: ignore[arg-type]


async def _verify(
    backend: OllamaBackend, model: str, environment: Mapping[str, str], parameters: Mapping[str, Value]
) -> None:
    name = names_of(model).name if parameters else model
    wrong = differences(environment, parameters, await gather(backend), name)
    if wrong:
        raise BackendError(f"{backend.client} reads back differently: {'; '.join(wrong)}", kind="not_applied")


async def _make(
    backend: OllamaBackend, model: str, parameters: Mapping[str, Value], verify: Callable[[], Awaitable[None]]
) -> str | None:
    """The derived model as it should be: made anew, or gone where there are no parameters."""
    names, known = names_of(model), load_applied(backend.url).get(model)
    if not parameters:
        if known is not None:
            await drop(backend, names, existed=known.existed)
            forget_applied(known)
        await verify()
        return None
    theirs = known is None and await exists(backend, names.name)
    if known is None:
        known = Applied(backend.url, model, names.name, existed=theirs)
        save_applied(known)
        try:
            await derive(backend, model, parameters, verify, theirs=theirs)
        except BaseException:
            forget_applied(known)
            raise
    else:
        await derive(backend, model, parameters, verify, theirs=False)
    return names.name


async def _write(
    backend: OllamaBackend, channel: Channel, environment: Mapping[str, str], before: Applied | None
) -> None:
    """Write the whole environment that is wanted; what the channel held before the first change stays on record."""
    if not environment:
        await roll_back(backend, channel, model="")
        return
    names = {*environment, *(before.environment if before else ())}
    held = before.before if before else channel.read(tuple(names))
    path = str(channel.path)
    save_applied(Applied(backend.url, channel=channel.kind, path=path, environment=dict(environment), before=held))
    channel.write(environment)
    channel.restart()
    await backend.wait_ready()


async def _rewrite(
    backend: OllamaBackend, channel: Channel, environment: Mapping[str, str], before: Applied | None
) -> None:
    """The environment as it was before `_write`: an earlier change of ours, or what was there before any."""
    if before is None:
        await roll_back(backend, channel, model="")
        return
    save_applied(before)
    channel.restore(tuple(name for name in environment if name not in before.environment), {})
    channel.write(before.environment)
    await _restart(backend, channel)


async def _restart(backend: OllamaBackend, channel: Channel) -> None:
    if channel.restartable:
        channel.restart()
        await backend.wait_ready()


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

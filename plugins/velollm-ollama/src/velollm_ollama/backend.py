"""Ollama over its native interface."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from attrs import evolve

from velollm_core.backends.http import Event, HttpBackend
from velollm_core.backends.ndjson import JsonLines
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_ollama import application, export, undoing, wire
from velollm_ollama.evidence import LoadedModel
from velollm_ollama.facts import Facts
from velollm_ollama.gather import gather
from velollm_ollama.keep import Keeper
from velollm_ollama.parameters import parse_shown
from velollm_ollama.read_back import read_settings_back
from velollm_ollama.show import show_spec
from velollm_ollama.version import Version, parse_version

if TYPE_CHECKING:
    from velollm_core.backends.change import Change
    from velollm_core.backends.client import Timeouts
    from velollm_core.backends.framing import Framing
    from velollm_core.backends.request import Chunk, Request, Usage
    from velollm_core.backends.setting import Plan, Setting, Value
    from velollm_core.models.spec import ModelSpec

LOCALAI = "/.well-known/localai.json"
READY_SECONDS = 90.0
SLOW_START = "it answers only after looking for GPUs, up to 30 s after its start (90 s on Windows)"


class OllamaBackend(HttpBackend):
    """An Ollama server.

    It cannot be told to produce an exact number of tokens, nor to leave its prompt cache alone. While requests run,
    models are kept loaded; `close` gives each the keep-alive back that it had.
    """

    name = "ollama"
    suffixes = export.SUFFIXES
    altering = frozenset(
        {"OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V"}
    )

    def __init__(self, url: str, api_key: str | None = None, timeouts: Timeouts | None = None) -> None:
        """``url`` is the server's root; nothing is connected before the first call."""
        super().__init__(url, api_key, timeouts)
        self.version: Version | None = None
        self.facts: dict[str, Facts] = {}
        self.may_restart = False
        self._keeper = Keeper()
        self._served: dict[str, str] = {}

    def framing(self) -> Framing:
        """One JSON document a line."""
        return JsonLines()

    def path(self, request: Request) -> str:
        """The native endpoint that answers ``request``."""
        return wire.path(request)

    def payload(self, request: Request) -> dict[str, Any]:
        """``request`` in Ollama's words."""
        return wire.payload(request)

    def chunk(self, event: Event) -> Chunk | None:
        """One line in ours."""
        return wire.chunk(event)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer ``request`` piece by piece; a prompt that the server cut is an error, not an answer."""
        request = evolve(request, model=self._served.get(request.model, request.model))
        await self._keeper.before(self, request.model)
        counted: Usage | None = None
        try:
            async with aclosing(super().stream(request)) as chunks:
                async for piece in chunks:
                    self._keeper.changed(request.model)
                    counted = piece.usage or counted
                    yield piece
        except BackendError as error:
            raise _explained(error) from error
        if counted is not None and wire.was_cut(request, counted):
            raise BackendError(
                f"{self.client} cut the prompt to {counted.prompt_tokens} tokens: it does not fit the model's num_ctx",
                kind="truncated",
            )

    async def status(self) -> Status:
        """One look; a server that listens but is silent is most likely still starting."""
        status = await super().status()
        if status.reason and "does not answer within" in status.reason:
            return evolve(status, reason=f"{status.reason}; {SLOW_START}")
        return status

    async def look(self) -> Status:
        """Version and models. LocalAI plays Ollama on this very page, so it is asked first for one that only it has."""
        await self._not_localai()
        document = await self.client.read_json("GET", "/api/version")
        version = document.get("version") if isinstance(document, Mapping) else None
        if not isinstance(version, str):
            raise BackendError(f"{self.url} answers, but it is not Ollama; set VELOLLM_OLLAMA_URL", kind="identity")
        self.version = parse_version(version)
        names = tuple(str(entry["name"]) for entry in await self.tags() if not entry.get("remote_host"))
        return Status(reachable=True, version=version, models=names, location=self.url, running=True)

    async def wait_ready(self, seconds: float = READY_SECONDS) -> Status:
        """The first status that answers, asked for until ``seconds`` are over: for a server that has just started.

        Raises:
            BackendUnreachable: it did not answer in time.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while True:
            status = await self.status()
            if status.reachable:
                return status
            if loop.time() >= end:
                raise BackendUnreachable(f"{status.reason or self.url}; waited {seconds:g} s")
            await asyncio.sleep(min(0.25, max(0.0, end - loop.time())))

    async def resolve(self, model: str) -> ModelSpec:
        """The spec of ``model`` from the server's own metadata; raises `BackendError` for a model it does not have.

        What a plan will need to know of the server is read on the way, and kept in ``facts``.
        """
        show = await self.show(model)
        self.facts[model] = await self._learn(show)
        sizes = {str(entry["name"]): entry.get("size") for entry in await self.tags()}
        size = sizes.get(model, sizes.get(f"{model}:latest"))
        return show_spec(model, show, size if isinstance(size, int) else None)

    async def apply(self, model: ModelSpec, settings: Sequence[Setting]) -> None:
        """Put ``settings`` in force, proved and read back; requests to the model then go to its derived one.

        ``may_restart`` must be set for settings that only a restart of the service puts in force.
        """
        if model.format != "ollama":
            raise BackendError(f"ollama: {model.source} is not one of its models: `ollama create` imports a file")
        name = await application.apply(self, model.name, settings, may_restart=self.may_restart)
        self._served = {model.name: name} if name else {}

    async def read_back(self) -> Mapping[str, Value]:
        """What server and loaded model run with, as far as it can be read; defaults that were assumed are left out."""
        loaded = await self.loaded()
        model = next(iter(self._served.values()), loaded[0].name if loaded else None)
        return read_settings_back(await gather(self), model)

    async def roll_back(self) -> None:
        """Take back what this run has applied last; where that is nothing, whatever earlier runs have applied here."""
        model = next(iter(self._served), None)
        self._served = {}
        await application.roll_back(self, model=model)

    def changes(self) -> tuple[Change, ...]:
        """What VeloLLM has recorded for this server, whichever run applied it."""
        return undoing.changes(self.url)

    async def undo(self, change: Change) -> None:
        """Take one of `changes` back; the record goes last."""
        await undoing.undo(self, change)

    def emit(self, plan: Plan, suffix: str) -> str:
        """``plan`` as a file ending in ``suffix``; raises `VeloError` for what this version would not read as written.

        Pure: nobody is asked.
        """
        return export.emit(plan, suffix, self.version)

    async def show(self, model: str) -> dict[str, Any]:
        """The answer of ``/api/show``."""
        try:
            return await self._object("POST", "/api/show", {"model": model})
        except BackendError as error:
            if error.status == 404:
                text = f"{self.client} has no model {model}: `ollama pull {model}` gets it"
                raise BackendError(text, status=404, kind="not_found") from error
            raise

    async def tags(self) -> Sequence[Mapping[str, Any]]:
        """The models on the server's disk."""
        return await self._entries("/api/tags")

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """The models in memory now."""
        return tuple(LoadedModel.from_ps(entry) for entry in await self._entries("/api/ps"))

    async def call(self, method: str, path: str, body: Mapping[str, Any], seconds: float = 60.0) -> dict[str, Any]:
        """One request that is answered by one document, or by nothing; raises `BackendError` with plain words."""
        try:
            data = await self.client.read(method, path, body, seconds=seconds)
        except BackendError as error:
            raise _explained(error) from error
        return _document(data, f"{self.client}: {path}")

    async def close(self) -> None:
        """Give every model its keep-alive back, then close the connections."""
        with suppress(BackendError):
            await self._keeper.restore(self)
        await super().close()

    async def _learn(self, show: Mapping[str, Any]) -> Facts:
        evidence = await gather(self)
        self._keeper.learn(str(read_settings_back(evidence).get("OLLAMA_KEEP_ALIVE")))
        capabilities = show.get("capabilities")
        return Facts(
            evidence,
            parse_shown(str(show.get("parameters") or "")),
            completes=not isinstance(capabilities, list) or "completion" in capabilities,
        )

    async def _not_localai(self) -> None:
        try:
            page = await self.client.read_json("GET", LOCALAI)
        except BackendError as error:
            if isinstance(error, BackendUnreachable) or error.kind == "auth":
                raise
            return
        if isinstance(page, Mapping) and "endpoint_groups" in page:
            raise BackendError(f"{self.url} is LocalAI, not Ollama; set VELOLLM_OLLAMA_URL", kind="identity")

    async def _object(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        document = await self.client.read_json(method, path, body)
        if not isinstance(document, dict):
            raise BackendError(f"{self.client} answers {path} with something that is no object", kind="malformed")
        return document

    async def _entries(self, path: str) -> Sequence[Mapping[str, Any]]:
        entries = (await self._object("GET", path)).get("models")
        if entries is None:
            return ()
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and "name" in entry for entry in entries):
            raise BackendError(f"{self.client} answers {path} without a list of models", kind="malformed")
        return entries


def _explained(error: BackendError) -> BackendError:
    plain = wire.plain_reason(str(error))
    return error if plain == str(error) else BackendError(plain, status=error.status, kind=error.kind)


def _document(data: bytes, subject: str) -> dict[str, Any]:
    import json

    if not data.strip():
        return {}
    try:
        document = json.loads(data)
    except ValueError as error:
        raise BackendError(f"{subject} answers with something that is not JSON", kind="malformed") from error
    if not isinstance(document, dict):
        raise BackendError(f"{subject} answers with something that is no object", kind="malformed")
    if document.get("error"):
        raise BackendError(f"{subject}: {wire.plain_reason(str(document['error']))}", kind="server")
    return document

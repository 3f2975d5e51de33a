"""llama.cpp behind one backend: a server that runs, a binary that VeloLLM starts, or the library embedded."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import evolve

from velollm_core.backends.client import HttpClient
from velollm_core.backends.openai import OpenAIBackend
from velollm_core.backends.sse import EventStream
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable
from velollm_llamacpp import completion
from velollm_llamacpp.addresses import OWN_URL, default_url
from velollm_llamacpp.emit import SUFFIXES, emit
from velollm_llamacpp.engines import BinaryEngine, Engine, find_engine
from velollm_llamacpp.keeper import Keeper
from velollm_llamacpp.library import find_library
from velollm_llamacpp.metrics import read_metrics
from velollm_llamacpp.served import SERVED_BY, is_ours, loaded_file
from velollm_llamacpp.server import NAME, Launch, report
from velollm_llamacpp.settings import ALTERING, chosen
from velollm_llamacpp.variations import variations

if TYPE_CHECKING:
    from velollm_core.backends.client import Timeouts
    from velollm_core.backends.framing import Framing
    from velollm_core.backends.http import Event
    from velollm_core.backends.request import Chunk, Request
    from velollm_core.backends.setting import Plan, Setting, Value
    from velollm_core.backends.variation import Variation
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec
    from velollm_llamacpp.allocator import Allocator

NOTHING_HERE = "no llama-server on PATH, and xllamacpp is not installed; `pip install velollm[llamacpp]` brings it"


class LlamaCppBackend(OpenAIBackend):
    """One llama.cpp, in a llama-server or behind `velollm llamacpp serve`, whose endpoints are OpenAI's alone.

    ``offloads`` says whether it can use the GPUs of this machine, None before anybody looked.
    """

    name = NAME
    extras = frozenset({"ignore_eos", "cache_prompt", "top_k", "min_p"})
    # llama-server closes after every stream, without a word: a connection kept for the next request would be dead.
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES
    altering = ALTERING

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        *,
        binary: str | None = None,
        gpus: bool = False,
        load_seconds: float | None = None,
    ) -> None:
        """With ``url`` only the server there is used, with ``binary`` (a program, or ``embedded``) only that.

        With neither: the server at llama-server's own address if one runs, then that of `velollm llamacpp serve`, else
        what can be started here. ``gpus`` says whether this machine has any; ``load_seconds`` bounds a server's start.
        """
        super().__init__(url or default_url(os.environ), api_key, timeouts)
        self.offloads: bool | None = None
        beside = HttpClient(self.name, OWN_URL, api_key, self.client.timeouts, self.headers)
        self._places = (self.client,) if url else (self.client, beside)
        self._home = self.client
        self._ours: bool | None = None
        self._only_url = url is not None
        self._binary = binary
        self._gpus = gpus
        self._own = Keeper(self.client.timeouts, self.headers, load_seconds)
        self._allocator: Allocator | None = None

    def path(self, request: Request) -> str:
        """llama-server's own endpoint for text, which counts tokens piece by piece; OpenAI's for chat."""
        return super().path(request) if request.messages or self._ours else "/completion"

    def payload(self, request: Request) -> dict[str, Any]:
        """The request in the words of `path`'s endpoint."""
        return super().payload(request) if request.messages or self._ours else completion.payload(request)

    def chunk(self, event: Event) -> Chunk | None:
        """An event of either endpoint."""
        return completion.chunk(event) if completion.is_event(event) else super().chunk(event)

    def framing(self) -> Framing:
        """``/completion`` ends with its last event, the chat endpoint with ``[DONE]``."""
        stream = EventStream()
        stream.has_end_marker = False
        return stream

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        """Answer ``request``; where a server of ours dies meanwhile, the error has its own reason."""
        if self._ours is None:
            # What keeps it from answering, the request will meet too.
            with suppress(BackendError):
                await self.version()
        try:
            async with aclosing(super().stream(request)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except BackendError as error:
            raise await self._own.explained(error) from error

    async def status(self) -> Status:
        """The server that runs, which is where requests then go, else what could be started."""
        if self._own.server is None and self._binary:
            return await asyncio.to_thread(self._startable, None)
        if self._own.server is not None:
            return await super().status()
        looks = []
        for place in self._places:
            self._go_to(place)
            looks.append(await super().status())
            if looks[-1].running:
                return looks[-1]
        self._go_to(self._places[0])
        return looks[0] if self._only_url else await asyncio.to_thread(self._startable, looks[0].reason)

    async def version(self) -> str | None:
        """The build, out of ``/props``, which other servers do not have; for VeloLLM's own engine the command."""
        props = await self._props()
        if self._ours:
            return SERVED_BY
        if not isinstance(props, dict) or "default_generation_settings" not in props:
            raise BackendError(f"{self.url} answers, but it is not llama-server; set VELOLLM_LLAMACPP_URL")
        if self._own.server is not None:
            return self._own.server.engine.version
        build = props.get("build_info")
        return build if isinstance(build, str) else None

    async def resolve(self, model: str) -> ModelSpec:
        """The spec of the file that the server has loaded, or of the file ``model`` where none runs.

        Raises:
            BackendError: the server's file is not on this machine.
        """
        from velollm_core.models.files import read_model
        from velollm_core.models.source import load_spec

        try:
            props = await self._props()
        except BackendUnreachable:
            return await asyncio.to_thread(load_spec, model)
        path = Path(str(props.get("model_path", "")))
        if not path.is_file():
            raise BackendError(f"{self.client} has loaded {path}, which is not a file here; give the model's own file")
        return evolve(await asyncio.to_thread(read_model, path), name=model)

    async def memory(self, model: ModelSpec, load: LoadSettings) -> MemoryBreakdown:
        """What llama.cpp's own allocator would take, asked in a child process that allocates nothing.

        Raises:
            ModelRefused: llama.cpp would not load it.
            BackendError: the library is not installed, or cannot know.
        """
        from velollm_llamacpp.allocator import Allocator

        library = find_library()
        if library is None:
            raise BackendError(f"{NAME}: the allocator needs xllamacpp; `pip install velollm[llamacpp]` brings it")
        self._allocator = self._allocator or Allocator(library)
        return await self._allocator.memory(model, load)

    async def apply(self, model: ModelSpec, settings: Sequence[Setting]) -> None:
        """Start (or restart) a server of our own with exactly ``settings``, and compare what it reads back.

        Raises:
            BackendError: the settings are wrong, the server is not ours or has requests in flight, it does not load,
                or reads back otherwise. What ran before runs again.
        """
        launch = Launch(_local_file(model), chosen(settings))
        engine = await self._engine()
        try:
            await self._own.replace(engine, launch)
        finally:
            self._look_at_own()

    async def read_back(self) -> Mapping[str, Value]:
        """What the server says it runs with: ``/props``, ``/slots`` and, for one of ours, its log."""
        return await report(self.client, self._own.server.process if self._own.server else None)

    async def roll_back(self) -> None:
        """Return to what ran before the last `apply`, which may be nothing."""
        if self._own.server is None:
            return
        engine = await self._engine()
        try:
            await self._own.roll_back(engine)
        finally:
            self._look_at_own()

    async def count_tokens(self, model: str, text: str) -> int:
        """Tokens of ``text``, without special ones; the server has one model, whatever ``model`` says."""
        answer = await self.client.read_json("POST", "/tokenize", {"content": text, "add_special": False})
        tokens = answer.get("tokens") if isinstance(answer, dict) else None
        if not isinstance(tokens, list):
            raise BackendError(f"{self.client} answers /tokenize without tokens", kind="malformed")
        return len(tokens)

    async def server_metrics(self) -> Mapping[str, float]:
        """The counters of ``/metrics``; a server started without ``--metrics`` has none."""
        page = await self.client.read("GET", "/metrics")
        return read_metrics(page.decode(errors="replace"))

    def variations(self, plan: Plan, hardware: Hardware) -> tuple[Variation, ...]:
        """See `velollm_llamacpp.variations`."""
        return variations(plan, hardware)

    def emit(self, plan: Plan, suffix: str) -> str:
        """``plan`` as a file ending in ``suffix``, see `velollm_llamacpp.emit`."""
        return emit(plan, suffix)

    async def close(self) -> None:
        """End the server that we started, and close the connections."""
        try:
            await self._own.stop()
        finally:
            self._look_at_own()
            for place in self._places:
                await place.close()

    def _look_at_own(self) -> None:
        client = self._own.server.client if self._own.server else self._home
        if client is not self.client:
            self.client, self._ours = client, False if self._own.server else None

    def _go_to(self, place: HttpClient) -> None:
        self._home = place
        self._look_at_own()

    async def _props(self) -> Any:
        """What llama-server says of itself; of VeloLLM's own engine as much of that as its list of models tells."""
        try:
            props = await self.client.read_json("GET", "/props")
        except BackendError as error:
            if error.status != 404 or not is_ours(entries := await self.model_entries()):
                raise
            self._ours = True
            return {"model_path": loaded_file(entries)}
        self._ours = False
        return props

    async def _engine(self) -> Engine:
        """What to start a server with.

        Raises:
            BackendError: a server runs that is not ours, or there is nothing to start.
        """
        if self._own.server is None and not self._binary:
            status = await super().status()
            if status.running or self._only_url:
                advice = "stop it, or name a program with --binary (`embedded` is one)"
                raise BackendError(
                    f"{self.client} was not started by VeloLLM and is left alone; {advice}", kind="foreign"
                )
        engine = await asyncio.to_thread(find_engine, self._binary)
        if engine is None:
            raise BackendUnreachable(f"{NAME}: {NOTHING_HERE}")
        return engine

    def _startable(self, absent: str | None) -> Status:
        try:
            engine = find_engine(self._binary)
        except BackendError as error:
            return Status(reachable=False, reason=str(error), location=self._binary)
        if engine is None:
            reason = f"{absent}; {NOTHING_HERE}" if absent else NOTHING_HERE
            return Status(reachable=False, reason=reason, location=self.url)
        if self._gpus and self.offloads is None:
            self.offloads = engine.offloads()
        if isinstance(engine, BinaryEngine) and not engine.known_flags:
            reason = f"{engine.location} is no llama-server: it lists no flags"
            return Status(reachable=False, reason=reason, location=engine.location)
        return Status(reachable=True, version=engine.version, location=engine.location)


def _local_file(model: ModelSpec) -> str:
    path = Path(model.source).expanduser()
    if not path.is_file() or not model.data_present:
        raise BackendError(f"{NAME}: {model.source} is not a whole model file on this machine; download it first")
    return str(path.resolve())

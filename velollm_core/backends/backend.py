"""What a backend can do: four things always, the rest found by `isinstance`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from velollm_core.backends.change import Change
    from velollm_core.backends.request import Chunk, Request
    from velollm_core.backends.setting import Plan, Setting, Value
    from velollm_core.backends.status import Status
    from velollm_core.backends.variation import Variation
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec


@runtime_checkable
class Backend(Protocol):
    """One inference engine that can be asked for text."""

    @property
    def name(self) -> str:
        """What `--backend` calls it; unique among the backends of a machine."""

    async def status(self) -> Status:
        """Look once, within seconds. An absent server is a `Status` with a reason, never an exception."""

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer ``request`` piece by piece; raises `BackendError` when the server refuses or breaks off."""

    async def close(self) -> None:
        """Let go of connections and of every process this backend started; it may be used again afterwards."""


@runtime_checkable
class Resolves(Protocol):
    """A backend that knows the shape of its models."""

    async def resolve(self, model: str) -> ModelSpec:
        """The spec of ``model`` (a name the backend lists, or a file it can load), with its source."""


@runtime_checkable
class MeasuresMemory(Protocol):
    """A backend whose engine can say what it would take, without taking it."""

    async def memory(self, model: ModelSpec, load: LoadSettings) -> MemoryBreakdown:
        """The engine's own figures; raises `ModelRefused` with its reason where it would not load."""


@runtime_checkable
class Applies(Protocol):
    """A backend whose settings VeloLLM can set, and read back from the engine itself."""

    async def apply(self, model: ModelSpec, settings: Sequence[Setting]) -> None:
        """Load ``model`` with exactly ``settings``; raises `BackendError` and rolls back where that fails."""

    async def read_back(self) -> Mapping[str, Value]:
        """What the engine says it runs with, by `Setting.name`; settings it does not report are left out."""

    async def roll_back(self) -> None:
        """Return to what ran before the last `apply`; nothing happens where nothing was applied."""


@runtime_checkable
class Varies(Protocol):
    """A backend that knows which of its settings only measuring can decide."""

    def variations(self, plan: Plan, hardware: Hardware) -> Sequence[Variation]:
        """What may be varied about ``plan``, the most telling first; pure. No option contradicts the plan's others."""


@runtime_checkable
class AltersAnswers(Protocol):
    """A backend that knows which of its settings make the engine compute other numbers, so that answers may differ.

    ``altering`` are their names as in `Setting.name`: types of the KV cache, flash attention, speculation. Where a
    backend does not say, any setting may.
    """

    altering: frozenset[str]


@runtime_checkable
class Undoes(Protocol):
    """A backend whose settings outlast the run that applied them, and that keeps a record of what it changed."""

    def changes(self) -> Sequence[Change]:
        """What is recorded and still in force, in the order in which it is to be taken back; no server is asked."""

    async def undo(self, change: Change) -> None:
        """Return to what was before ``change`` and forget it; raises `VeloError` and keeps the record on failure."""


@runtime_checkable
class Emits(Protocol):
    """A backend whose plans can be written down, for people to start their server with.

    ``suffixes`` are the file names' endings it can write (``.sh``, ``.env``, ``.json``, …), its own first format first.
    """

    suffixes: Sequence[str]

    def emit(self, plan: Plan, suffix: str) -> str:
        """The text of a file ending in ``suffix`` that starts the server as ``plan`` says; pure.

        Raises:
            BackendError: the backend writes no such file, or ``plan`` holds a setting that it does not know.
        """


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can count the tokens of a text."""

    async def count_tokens(self, model: str, text: str) -> int:
        """Tokens of ``text`` as ``model`` cuts it, without special tokens."""


@runtime_checkable
class ReadsServerMetrics(Protocol):
    """A backend that exposes counters of its own."""

    async def server_metrics(self) -> Mapping[str, float]:
        """The counters by the name the server gives them."""

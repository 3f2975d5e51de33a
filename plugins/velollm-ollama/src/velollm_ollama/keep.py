"""Models stay loaded while requests run, and get back the keep-alive they had."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from attrs import define, field

from velollm_core.errors import BackendError
from velollm_ollama.parse import FOREVER, parse_duration

if TYPE_CHECKING:
    from velollm_ollama.backend import OllamaBackend
    from velollm_ollama.evidence import LoadedModel

DEFAULT_SECONDS = 300
RESTORE_SECONDS = 5.0
_YEARS = 10 * 365 * 24 * 3600


@define
class Keeper:
    """What each model's keep-alive was before the first request to it, seconds; -1 is for ever.

    A request that names no keep-alive leaves the one before in force, so the old one must be given back by name.
    ``default`` is what a model gets that was not loaded before.
    """

    default: int = DEFAULT_SECONDS
    _before: dict[str, int] = field(factory=dict)
    _changed: set[str] = field(factory=set)

    async def before(self, backend: OllamaBackend, model: str) -> None:
        """Remember how long ``model`` would have stayed."""
        if model in self._before:
            return
        self._before[model] = self.default
        with suppress(BackendError):  # whatever is wrong, the request itself will say
            found = next((loaded for loaded in await backend.loaded() if same(loaded.name, model)), None)
            if found is not None:
                self._before[model] = seconds_left(found, datetime.now(UTC))

    def learn(self, read: str | None) -> None:
        """Take the server's own keep-alive, as its log prints it, for models that were not loaded before."""
        nanoseconds = parse_duration(read or "")
        if nanoseconds is not None:
            self.default = -1 if nanoseconds == FOREVER else round(nanoseconds / 10**9)

    def changed(self, model: str) -> None:
        """A request has set the keep-alive of ``model``."""
        self._changed.add(model)

    async def restore(self, backend: OllamaBackend) -> None:
        """Give the keep-alives back to the models that are still loaded."""
        before = {model: seconds for model, seconds in self._before.items() if model in self._changed}
        self._before, self._changed = {}, set()
        names = {loaded.name for loaded in await backend.loaded()} if before else set()
        for model, seconds in before.items():
            if any(same(name, model) for name in names):
                body: dict[str, Any] = {"model": model, "keep_alive": seconds}
                await backend.call("POST", "/api/generate", body, seconds=RESTORE_SECONDS)


def same(listed: str, asked: str) -> bool:
    """Whether two names mean one model: a missing tag is ``latest``."""
    return listed == asked or listed == f"{asked}:latest" or f"{listed}:latest" == asked


def seconds_left(model: LoadedModel, now: datetime) -> int:
    """Whole seconds until ``model`` would be unloaded, at least 1; -1 where that is centuries away."""
    try:
        end = datetime.fromisoformat(model.expires_at or "")
        left = (end - now).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return DEFAULT_SECONDS
    return -1 if left > _YEARS else max(1, round(left))

"""Which backend and which model a command means where nobody said so: decided once, for every command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from velollm_core.ask import ask
from velollm_core.backends.backend import Backend, Resolves
from velollm_core.backends.status import Status
from velollm_core.errors import BackendError, BackendUnreachable, VeloError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from velollm_core.models.spec import ModelSpec

Origin = Literal["asked", "backend", "disk", "test"]


@frozen
class BackendChoice:
    """The backend that a command works with, the look it was judged by, and why this one, in half a sentence."""

    backend: Backend
    status: Status
    reason: str


@frozen
class ModelCandidate:
    """A model that could be meant: ``name`` as the backend or the loader is asked for it, ``size`` in bytes."""

    name: str
    origin: Origin
    size: int | None = None
    label: str | None = None


@frozen
class ModelChoice:
    """The model that a command works with, its shape, and why this one, in half a sentence."""

    name: str
    spec: ModelSpec
    origin: Origin
    reason: str


def choose_backend(
    backends: Sequence[Backend],
    statuses: Mapping[str, Status],
    *,
    asked: str | None = None,
    default: str | None = None,
) -> BackendChoice | None:
    """The backend called ``asked``; else ``default`` (of config.toml) where it is reachable; else one that runs;
    else one that VeloLLM could start. None where there is none at all.

    Raises:
        VeloError: no installed plugin offers ``asked``.
        BackendUnreachable: ``asked`` does not answer; the text carries its own reason.
    """
    by_name = {backend.name: backend for backend in backends}
    if asked is not None:
        return _asked_backend(asked, by_name, statuses)
    reachable = [backend for backend in backends if _status(statuses, backend).reachable]
    running = [backend for backend in reachable if _status(statuses, backend).running]
    if default in {backend.name for backend in reachable}:
        return BackendChoice(by_name[str(default)], statuses[str(default)], "the default of config.toml")
    for group, only, first in (
        (running, "the only one that runs", "the first of those that run"),
        (reachable, "the only one that can be used here", "the first of those that can be started"),
    ):
        if group:
            others = ", ".join(backend.name for backend in group[1:])
            reason = f"{first} (also: {others})" if others else only
            return BackendChoice(group[0], _status(statuses, group[0]), reason)
    return None


def model_candidates(status: Status | None) -> tuple[ModelCandidate, ...]:
    """The models that could be meant, best first: those that a running backend lists, then GGUF files on disk,
    smallest first."""
    from velollm_core.models.discover import discover_ggufs

    listed = status.models if status is not None and status.running else ()
    found = sorted(discover_ggufs(), key=lambda model: model.size)
    return (
        *(ModelCandidate(name, "backend") for name in listed),
        *(ModelCandidate(str(model.path), "disk", model.size, model.name) for model in found),
    )


def choose_model(
    choice: BackendChoice | None,
    *,
    asked: str | None = None,
    pick: Callable[[Sequence[ModelCandidate]], ModelCandidate] | None = None,
    timeout: float = 10.0,
) -> ModelChoice:
    """The model ``asked`` for; else what ``pick`` takes of the candidates (default: the first); else the test model.

    A name that the backend lists is resolved by the backend, anything else read as a file, directory, ``hf:`` or URL.

    Raises:
        ModelFileError: the file cannot be read.
        VeloError: there is no such model, or none at all.
    """
    if asked is not None:
        return ModelChoice(asked, resolve(choice, asked, timeout=timeout), "asked", "asked for")
    candidates = model_candidates(choice.status if choice else None)
    if not candidates:
        path = str(_test_model())
        reason = "no model was found on this machine: this is VeloLLM's own test model, made from a seed"
        return ModelChoice(path, resolve(choice, path, timeout=timeout), "test", reason)
    chosen = (pick or (lambda found: found[0]))(candidates)
    spec = resolve(choice, chosen.name, timeout=timeout)
    return ModelChoice(chosen.name, spec, chosen.origin, _why(chosen, candidates))


def resolve(choice: BackendChoice | None, name: str, *, timeout: float = 10.0) -> ModelSpec:
    """The spec of ``name``: by the backend where it lists that name, else from the file, directory or URL."""
    from velollm_core.models.source import load_spec, looks_like_source

    if choice is None or not isinstance(choice.backend, Resolves):
        return load_spec(name)
    backend: Resolves = choice.backend
    if name not in choice.status.models and looks_like_source(name):
        return load_spec(name)
    try:
        return ask(choice.backend, lambda: backend.resolve(name), f"the shape of {name}", timeout)
    except BackendError:
        if not looks_like_source(name):
            raise
        return load_spec(name)


def _asked_backend(asked: str, by_name: Mapping[str, Backend], statuses: Mapping[str, Status]) -> BackendChoice:
    if asked not in by_name:
        known = ", ".join(by_name) or "none; install one, for example velollm-llamacpp"
        raise VeloError(f"no plugin offers a backend called {asked!r}; here are: {known}")
    status = _status(statuses, by_name[asked])
    if not status.reachable:
        raise BackendUnreachable(f"{asked}: {status.reason or 'does not answer'}")
    return BackendChoice(by_name[asked], status, "asked for")


def _status(statuses: Mapping[str, Status], backend: Backend) -> Status:
    return statuses.get(backend.name) or Status(reachable=False, reason="gave no status")


def _why(chosen: ModelCandidate, candidates: Sequence[ModelCandidate]) -> str:
    same = sum(candidate.origin == chosen.origin for candidate in candidates)
    if chosen.origin == "backend":
        return "the only model that the backend lists" if same == 1 else f"one of {same} that the backend lists"
    return "the only GGUF found on disk" if same == 1 else f"one of {same} GGUF files found on disk"


def _test_model() -> Path:
    from velollm_core.config import cache_dir
    from velollm_core.testing.test_model import write_test_model

    path = cache_dir() / "test-model.gguf"
    if not path.is_file():
        write_test_model(path)
    return path

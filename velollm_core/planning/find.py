"""The model that was named, and the engine that can be asked about it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from velollm_core.ask import ask
from velollm_core.backends.backend import Resolves
from velollm_core.errors import ModelFileError
from velollm_core.models.devices import devices
from velollm_core.models.source import load_spec, looks_like_source
from velollm_core.planning.sources import Sources, find_engine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.backends.backend import Backend
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec
    from velollm_core.planning.sources import Basis
    from velollm_core.plugins import Plugins


def find_sources(model: str, hardware: Hardware, basis: Basis, *, local: bool = True) -> Sources:
    """Both sources of bytes for ``model`` on ``hardware``, ``local`` or not; no plugin is loaded where none is needed.

    Raises:
        ModelFileError: the file cannot be read, or nobody knows the name.
    """
    if looks_like_source(model) and basis == "formula":
        return Sources(load_spec(model), devices(hardware))
    # A bad file is told before plugins are loaded.
    spec = load_spec(model) if looks_like_source(model) else None
    from velollm_core.plugins import Plugins

    plugins = Plugins.load()
    backends = plugins.detect(hardware)
    spec = spec or _resolved(model, plugins, backends)
    engine = find_engine(backends) if spec.format == "gguf" and basis != "formula" else None
    return Sources(spec, devices(hardware), engine, local=local)


def _resolved(name: str, plugins: Plugins, backends: Sequence[Backend]) -> ModelSpec:
    statuses = plugins.statuses(backends)
    for backend in backends:
        listed = statuses[backend.name].models
        match = next((each for each in (name, f"{name}:latest") if each in listed), None)
        if match is not None and isinstance(backend, Resolves):
            return ask(backend, partial(backend.resolve, match), f"the shape of {match}")
    running = [name for name, status in statuses.items() if status.running]
    where = f"and {', '.join(running)} lists no such model" if running else "and no backend runs that could know it"
    raise ModelFileError(f"{name}: no such file, {where}")

"""The models of a server, as they are listed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from velollm_core.backends.setting import Value
from velollm_core.errors import BackendError, VeloError
from velollm_ollama.evidence import LoadedModel
from velollm_ollama.keep import same
from velollm_ollama.parameters import check_parameters, parse_shown

if TYPE_CHECKING:
    from velollm_ollama.backend import OllamaBackend


@frozen
class ListedModel:
    """One model: ``size`` in bytes on disk, ``parameters`` of its own, ``loaded`` where it is in memory.

    ``problem`` says what makes it unusable: a parameter that Ollama took and then refuses at every request.
    """

    name: str
    size: int | None
    parent: str
    quantization: str
    context_length: int | None
    parameters: Mapping[str, Value] = field(factory=dict)
    loaded: LoadedModel | None = None
    problem: str | None = None


async def list_models(backend: OllamaBackend) -> tuple[ListedModel, ...]:
    """Every model that runs on this machine, in the server's order."""
    loaded = await backend.loaded()
    entries = [entry for entry in await backend.tags() if not entry.get("remote_host")]
    return tuple(await asyncio.gather(*(_listed(backend, entry, loaded) for entry in entries)))


async def _listed(backend: OllamaBackend, entry: Mapping[str, object], loaded: tuple[LoadedModel, ...]) -> ListedModel:
    name = str(entry["name"])
    details = entry.get("details")
    details = details if isinstance(details, Mapping) else {}
    size, context = entry.get("size"), details.get("context_length")
    parameters, problem = await _parameters(backend, name)
    return ListedModel(
        name=name,
        size=size if isinstance(size, int) else None,
        parent=str(details.get("parent_model") or ""),
        quantization=str(details.get("quantization_level") or ""),
        context_length=context if isinstance(context, int) else None,
        parameters=parameters,
        loaded=next((model for model in loaded if same(model.name, name)), None),
        problem=problem,
    )


async def _parameters(backend: OllamaBackend, name: str) -> tuple[dict[str, Value], str | None]:
    try:
        shown = parse_shown(str((await backend.show(name)).get("parameters") or ""))
        check_parameters(shown)
    except BackendError as error:
        return {}, str(error)
    except VeloError as error:
        return shown, str(error)
    return shown, None

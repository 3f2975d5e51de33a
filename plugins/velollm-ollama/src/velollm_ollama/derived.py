"""A derived model: the same weights under another name, with parameters of its own.

Ollama takes any nonsense as a parameter and then fails every request to the model, so each is checked before and
proved after. A model is made under a passing name and takes its own only when it has answered: an interruption
leaves what was there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from velollm_core.errors import BackendError, VeloError
from velollm_ollama.keep import same
from velollm_ollama.parameters import check_parameters, parse_shown

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value
    from velollm_ollama.backend import OllamaBackend

LOAD_SECONDS: Final = 600.0
Verify = Callable[[], Awaitable[None]]


@frozen
class Names:
    """``name`` of the derived model; ``stage`` while it is made, ``hold`` for the one it replaces until it is proved.

    ``backup`` keeps a model of somebody else's that had the name before.
    """

    base: str
    name: str
    stage: str
    hold: str
    backup: str


def names_of(base: str) -> Names:
    """``llama3:8b`` becomes ``llama3:8b-velo``, ``llama3`` becomes ``llama3:velo``."""
    slash = base.rfind("/")
    colon = base.rfind(":")
    stem, tag = (base[:colon], base[colon + 1 :]) if colon > slash else (base, "latest")
    own = "velo" if tag == "latest" else f"{tag}-velo"
    return Names(base, *(f"{stem}:{own}{end}" for end in ("", "-new", "-last", "-before")))


async def derive(
    backend: OllamaBackend, base: str, parameters: Mapping[str, object], verify: Verify, *, theirs: bool
) -> Names:
    """Make the derived model of ``base``, prove it by a request, give it its name, load it, and let ``verify`` judge.

    ``theirs`` tells that a model of somebody else's has the name: it is kept aside.

    Raises:
        VeloError: a parameter that Ollama does not have or of the wrong type.
        BackendError: the model could not be made, does not answer, or ``verify`` refuses it; nothing has changed then.
    """
    names = names_of(base)
    checked = check_parameters(parameters)
    await recover(backend, names)
    taken = False
    try:
        body = {"model": names.stage, "from": base, "parameters": checked, "stream": False}
        await backend.call("POST", "/api/create", body, seconds=LOAD_SECONDS)
        await prove(backend, names.stage, checked)
        if await exists(backend, names.name):
            await _copy(backend, names.name, names.hold)
            if theirs:
                await _copy(backend, names.name, names.backup)
        taken = True
        await _copy(backend, names.stage, names.name)
        await backend.call("POST", "/api/generate", {"model": names.name}, seconds=LOAD_SECONDS)
        await verify()
    except BaseException:
        with suppress(BackendError):
            await _put_back(backend, names, taken=taken)
            if theirs:
                await _remove(backend, names.backup)
        raise
    await _remove(backend, names.stage)
    await _remove(backend, names.hold)
    return names


async def recover(backend: OllamaBackend, names: Names) -> None:
    """Undo what an interrupted run has left: its unfinished model, and a name that it took too early."""
    await _put_back(backend, names, taken=False)


async def _put_back(backend: OllamaBackend, names: Names, *, taken: bool) -> None:
    """The state before `derive`: the model that was held back has the name, or, where it was ``taken``, none."""
    if await exists(backend, names.hold):
        await _copy(backend, names.hold, names.name)
        await _remove(backend, names.hold)
    elif taken:
        await _remove(backend, names.name)
    await _remove(backend, names.stage)


async def prove(backend: OllamaBackend, model: str, parameters: Mapping[str, Value]) -> None:
    """Raise `BackendError` unless ``model`` holds ``parameters``, answers a request, and loads with its num_ctx."""
    shown = parse_shown(str((await backend.show(model)).get("parameters") or ""))
    wrong = [name for name, value in parameters.items() if shown.get(name) != value]
    if wrong:
        raise BackendError(f"ollama: {model} does not hold {', '.join(wrong)} as asked: {shown or 'none at all'}")
    body: dict[str, Any] = {
        "model": model,
        "prompt": "One",
        "raw": True,
        "think": False,
        "stream": False,
        "options": {"num_predict": 2},
    }
    answer = await backend.call("POST", "/api/generate", body, seconds=LOAD_SECONDS)
    if not answer.get("done"):
        raise BackendError(f"ollama: {model} was made, but its answer to a first request has no end")
    wanted = parameters.get("num_ctx")
    loaded = next((each for each in await backend.loaded() if same(each.name, model)), None)
    if wanted is not None and loaded is not None and loaded.context not in (None, wanted):
        text = f"ollama: {model} was asked for a context of {wanted} and loads with {loaded.context}"
        raise BackendError(f"{text}: the model was not trained for more")


async def drop(backend: OllamaBackend, names: Names, *, existed: bool) -> None:
    """Delete the derived model, finished or not; where its name ``existed`` before, that model gets it back."""
    await recover(backend, names)
    if not existed:
        await _remove(backend, names.name)
    elif await exists(backend, names.backup):
        await _copy(backend, names.backup, names.name)
        await _remove(backend, names.backup)


async def exists(backend: OllamaBackend, name: str) -> bool:
    """Whether the server has a model called ``name``."""
    return any(same(str(entry["name"]), name) for entry in await backend.tags())


async def _copy(backend: OllamaBackend, source: str, destination: str) -> None:
    await backend.call("POST", "/api/copy", {"source": source, "destination": destination})


async def _remove(backend: OllamaBackend, name: str) -> None:
    try:
        await backend.call("DELETE", "/api/delete", {"model": name})
    except BackendError as error:
        if error.status != 404:
            raise


def modelfile(base: str, parameters: Mapping[str, object]) -> str:
    """A Modelfile that ``ollama create`` takes; raises `VeloError` for parameters that Ollama would not understand."""
    lines = []
    for name, value in check_parameters(parameters).items():
        shown = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else value
        if isinstance(value, str) and ("\n" in value or '"' in value):
            raise VeloError(f"{name}: a Modelfile cannot hold {value!r}")
        lines.append(f"PARAMETER {name} {shown}")
    return "\n".join([f"FROM {base}", *lines]) + "\n"

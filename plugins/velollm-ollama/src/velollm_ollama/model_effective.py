"""What a loaded model really runs with: from its child's command line, endpoints and environment, and the log."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_ollama.child import Child
from velollm_ollama.evidence import ChildReport, EffectiveSetting, Evidence, LoadedModel
from velollm_ollama.load import MIB, ModelLoad

COMMAND = "child's command line"
DEFAULT_CACHE_MIB = 8192


def loaded_settings(evidence: Evidence) -> Iterator[EffectiveSetting]:
    """The settings of every model that ``/api/ps`` lists, and of children that it does not name."""
    named = evidence.loaded or tuple(LoadedModel("", 0, 0, None) for _ in evidence.children)
    for index, model in enumerate(named):
        report = evidence.children[index] if index < len(evidence.children) and _paired(evidence) else None
        load = _load_of(report, evidence)
        name = model.name or "loaded model"
        if model.name:
            yield from _from_ps(model, name)
        if report is not None:
            yield from _from_child(report, name)
        elif load is not None:
            yield from _from_command(load.child, name, f"command line in {evidence.log_source}")
        if load is not None or report is not None:
            yield from _shared(report, load, name, evidence)


def _paired(evidence: Evidence) -> bool:
    """Whether children and loaded models are told apart: one of each, or children alone."""
    return not evidence.loaded or (len(evidence.loaded) == 1 and len(evidence.children) == 1)


def _load_of(report: ChildReport | None, evidence: Evidence) -> ModelLoad | None:
    loads = evidence.log.loads if evidence.log else ()
    if report is not None:
        return next((load for load in reversed(loads) if load.child.port == report.child.port), None)
    return loads[-1] if loads and len(evidence.loaded) == 1 and not loads[-1].failure else None


def _from_ps(model: LoadedModel, name: str) -> Iterator[EffectiveSetting]:
    if model.context is not None:
        yield EffectiveSetting("num_ctx", str(model.context), "/api/ps", model=name)
    share = f"{model.size_vram / model.size:.0%} on GPU" if model.size else "unknown"
    yield EffectiveSetting("size", str(model.size), "/api/ps", share, name)


def _from_child(report: ChildReport, name: str) -> Iterator[EffectiveSetting]:
    yield from _from_command(report.child, name, COMMAND, slots=report.slots is None)
    if report.slots is not None:
        yield EffectiveSetting("slots", str(report.slots), "child's /slots", model=name)
    if report.context_per_slot is not None:
        yield EffectiveSetting("context per slot", str(report.context_per_slot), "child's /props", model=name)


def _from_command(child: Child, name: str, source: str, *, slots: bool = True) -> Iterator[EffectiveSetting]:
    if slots and child.slots is not None:
        yield EffectiveSetting("slots", str(child.slots), source, model=name)
    if child.context is not None:
        yield EffectiveSetting("total context", str(child.context), source, model=name)
    yield EffectiveSetting("flash attention", child.flash_attention, source, model=name)
    if child.batch is not None:
        yield EffectiveSetting("num_batch", str(child.batch), source, model=name)
    layers = "as many as fit" if child.gpu_layers is None else str(child.gpu_layers)
    yield EffectiveSetting("num_gpu", layers, source, model=name)


def _shared(
    report: ChildReport | None, load: ModelLoad | None, name: str, evidence: Evidence
) -> Iterator[EffectiveSetting]:
    """Where a flag of the child is silent, its environment speaks."""
    child = report.child if report else load.child if load else None
    if child is None:
        return
    environment = report.environment if report else {}
    for letter, kind in (("K", child.type_k), ("V", child.type_v)):
        passed = environment.get(f"LLAMA_ARG_CACHE_TYPE_{letter}")
        source = f"LLAMA_ARG_CACHE_TYPE_{letter}" if kind == "f16" and passed else COMMAND
        yield EffectiveSetting(f"KV type {letter}", passed if kind == "f16" and passed else kind, source, model=name)
    threads = str(child.threads) if child.threads else environment.get("LLAMA_ARG_THREADS")
    if threads:
        yield EffectiveSetting("num_thread", threads, COMMAND if child.threads else "LLAMA_ARG_THREADS", model=name)
    unified = load.unified if load else None
    if unified is not None:
        yield EffectiveSetting("unified KV", str(unified).lower(), evidence.log_source, model=name)
    yield _prompt_cache(environment.get("LLAMA_ARG_CACHE_RAM"), load, name, evidence)


def _prompt_cache(passed: str | None, load: ModelLoad | None, name: str, evidence: Evidence) -> EffectiveSetting:
    if load is not None and load.prompt_cache is not None:
        return EffectiveSetting("prompt cache", f"{load.prompt_cache // MIB} MiB", evidence.log_source, model=name)
    if passed is not None:
        return EffectiveSetting("prompt cache", f"{passed} MiB", "LLAMA_ARG_CACHE_RAM", model=name)
    return EffectiveSetting("prompt cache", f"{DEFAULT_CACHE_MIB} MiB", "llama.cpp's default", model=name)

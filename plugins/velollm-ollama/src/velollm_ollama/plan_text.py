"""The words of a plan: reasons and notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from velollm_ollama.automatic import GIB, PROMPT_CACHE, default_context
from velollm_ollama.effective import effective
from velollm_ollama.kv_types import is_quantized

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.pick import Pick, Scene
    from velollm_core.models.spec import ModelSpec
    from velollm_ollama.facts import Facts

_MOST_FINDINGS = 6


def needed(need: int, spec: ModelSpec) -> str:
    """Why the context is what the workload needs."""
    if need > spec.context_length:
        return f"all that the model was trained for; {need} were asked for"
    return "what one request of this workload may use"


def cache(kind: str) -> str:
    """Why the cache has its type."""
    if kind == "f16":
        return "f16 loses nothing, and has room"
    return "half the cache's bytes for a small loss; f16 would not leave the model whole"


def notes(pick: Pick, scene: Scene, hardware: Hardware, workload: Workload, facts: Facts) -> Iterator[str]:
    """What else to know, one line each."""
    version = facts.version
    yield pick.fit.reason
    by_itself = min(default_context(hardware, version), scene.spec.context_length)
    if by_itself != pick.context:
        yield f"without num_ctx Ollama would take {by_itself} tokens, by the GPUs' memory and not by this model"
    yield from _placement(pick, scene)
    if is_quantized(pick.load.type_k):
        yield "OLLAMA_KV_CACHE_TYPE holds for every model of this server, embedding models included"
    if version.engine == "llama-server":
        yield f"Ollama keeps a prompt cache of up to {PROMPT_CACHE // GIB} GiB in main memory for each loaded model"
    own = facts.own.get("num_ctx")
    if own is not None and own != pick.context:
        yield f"the model's own num_ctx is {own}; the derived model replaces it"
    if workload.concurrency > pick.slots:
        yield f"{workload.concurrency} requests at a time will share {pick.slots} slot(s): the rest waits in Ollama"
    yield from _server(facts)


def _placement(pick: Pick, scene: Scene) -> Iterator[str]:
    layers = scene.spec.block_count + 1
    if scene.gpus and pick.load.gpu_layers < layers:
        yield (
            f"about {pick.load.gpu_layers} of {layers} layers fit the GPU; llama.cpp decides at load, "
            "as num_gpu is left alone: a number there switches its fitting off"
        )
    elif scene.gpus and pick.load.cpu_moe_layers:
        yield f"the experts of {pick.load.cpu_moe_layers} layers stay in main memory; llama.cpp decides at load"


def _server(facts: Facts) -> Iterator[str]:
    if facts.evidence is None:
        yield "planned without a look at the server: what it runs with now is not known"
        return
    if facts.version.newer_than_read:
        yield f"Ollama {facts.version} is newer than the tables here, which end with 0.33"
    found = effective(facts.evidence).findings
    for finding in found[:_MOST_FINDINGS]:
        yield f"server {finding}"
    if len(found) > _MOST_FINDINGS:
        yield f"{len(found) - _MOST_FINDINGS} more: `velollm ollama config lint`"

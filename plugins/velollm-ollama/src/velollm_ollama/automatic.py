"""What Ollama chooses by itself: context, batch, slots, mapping. A plan must reckon with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from velollm_ollama.version import LLAMA_SERVER_SINCE, Triple, Version

if TYPE_CHECKING:
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec

GIB: Final = 2**30
MIB: Final = 2**20
FIT_TARGET: Final = 1024 * MIB
"""What llama.cpp leaves free on each GPU when it fits layers, bytes."""
PROMPT_CACHE: Final = 8192 * MIB
"""The bound of the prompt cache that each loaded model keeps in main memory, bytes."""

_SINGLE: Final[tuple[tuple[Triple, tuple[str, ...]], ...]] = (
    ((0, 5, 0), ("mllama",)),
    ((0, 12, 7), ("qwen3vl", "qwen3vlmoe")),
    ((0, 16, 0), ("qwen3next", "lfm2", "lfm2moe")),
    ((0, 17, 7), ("qwen35", "qwen35moe", "nemotron_h", "nemotron_h_moe")),
    ((0, 22, 0), ("nemotron_h_omni",)),
)
_TIERS_SINCE: Final = (0, 15, 5)


def single_slot(architecture: str, version: Version) -> bool:
    """Whether the version holds that architecture at one request at a time, whatever OLLAMA_NUM_PARALLEL says."""
    return any(architecture in names for since, names in _SINGLE if version.at_least(since))


def default_context(hardware: Hardware, version: Version) -> int:
    """Tokens of context where nobody asks for any, before the model's own limit: by the GPUs' memory alone."""
    if not version.at_least(_TIERS_SINCE):
        return 4096 if version.at_least((0, 6, 7)) else 2048
    total = sum(gpu.memory_total or 0 for gpu in hardware.visible_gpus)
    return 262144 if total >= 47 * GIB else 32768 if total >= 23 * GIB else 4096


def automatic_batch(spec: ModelSpec, total_context: int, hardware: Hardware, version: Version) -> int:
    """Prompt tokens at a time for ``total_context`` tokens over all slots: larger for a long context with room."""
    if not version.at_least(LLAMA_SERVER_SINCE):
        return 512
    wanted = 2048 if total_context > 32768 else 1024 if total_context > 4096 else 512
    need, free = predicted_bytes(spec, total_context), available(hardware)
    for batch, share, surcharge in ((2048, 60, 2 * GIB), (1024, 75, 768 * MIB)):
        if wanted >= batch and need <= free * share // 100 and surcharge <= free * 80 // 100 - need:
            return batch
    return 512


def predicted_bytes(spec: ModelSpec, total_context: int) -> int:
    """Ollama's own forecast, by which it places and evicts: file size and an f16 cache of every layer."""
    heads = [layer for layer in spec.layers if layer.heads]
    kv_heads = max(1, min((layer.kv_heads for layer in spec.layers), default=1))
    head = spec.embedding_length // max(layer.heads for layer in heads) if heads else 0
    return (spec.file_bytes or spec.tensor_bytes) + 2 * spec.block_count * kv_heads * head * total_context * 2


def available(hardware: Hardware) -> int:
    """Bytes that Ollama counts on: free memory of the GPUs, else of the machine."""
    gpus = [gpu for gpu in hardware.visible_gpus if not gpu.unified]
    free = sum(gpu.memory_free or gpu.memory_total or 0 for gpu in gpus)
    return free or hardware.memory.available


def maps_weights(hardware: Hardware, version: Version) -> bool:
    """Whether the file is mapped into memory rather than read: not on a CPU alone, since 0.30."""
    return bool(hardware.visible_gpus) or version.engine == "runners"

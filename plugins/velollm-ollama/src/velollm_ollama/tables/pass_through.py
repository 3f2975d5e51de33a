"""llama.cpp's variables in Ollama's environment: which reach the child, and which its own flags overrule."""

from __future__ import annotations

from typing import Final

from velollm_ollama.variable import PassThrough

_ACTS: Final = (
    PassThrough("LLAMA_ARG_FIT", "Fit layers to the free memory.", documented=True),
    PassThrough("LLAMA_ARG_FIT_TARGET", "Memory to leave free on each GPU.", unit="MiB", documented=True),
    PassThrough(
        "LLAMA_ARG_CACHE_RAM",
        "Bound of the prompt cache in main memory, per loaded model; llama.cpp's default is 8192, 0 switches it off.",
        unit="MiB",
    ),
    PassThrough("LLAMA_ARG_THREADS", "Threads, where num_thread is not set.", unit="threads"),
    PassThrough(
        "LLAMA_ARG_N_GPU_LAYERS", "Layers on the GPU; switches llama.cpp's fitting off.", condition="num_gpu is -1"
    ),
    PassThrough("LLAMA_ARG_CACHE_TYPE_K", "Type of the K cache alone.", condition="OLLAMA_KV_CACHE_TYPE is unset"),
    PassThrough("LLAMA_ARG_CACHE_TYPE_V", "Type of the V cache alone.", condition="OLLAMA_KV_CACHE_TYPE is unset"),
    PassThrough("LLAMA_ARG_CACHE_REUSE", "Least chunk of a shifted prompt to reuse.", unit="tokens"),
    PassThrough("LLAMA_ARG_KV_UNIFIED", "One cache that all slots share, instead of one each."),
    PassThrough("LLAMA_ARG_CPU_MOE", "Keep all experts in main memory."),
    PassThrough("LLAMA_ARG_N_CPU_MOE", "Keep the experts of the first N layers in main memory.", unit="layers"),
    PassThrough("LLAMA_ARG_OVERRIDE_TENSOR", "Place tensors by name pattern."),
    PassThrough("LLAMA_ARG_SPLIT_MODE", "How layers spread over GPUs.", condition="Ollama did not pick one GPU itself"),
    PassThrough("LLAMA_ARG_TENSOR_SPLIT", "Share of each GPU.", condition="Ollama did not pick one GPU itself"),
    PassThrough("LLAMA_ARG_NUMA", "NUMA strategy."),
    PassThrough("LLAMA_ARG_CTX_CHECKPOINTS", "Checkpoints of windowed caches per slot.", unit="checkpoints"),
    PassThrough("LLAMA_ARG_SWA_FULL", "Windowed layers cache the whole context."),
    PassThrough("LLAMA_ARG_LOAD_MODE", "How weights are read.", condition="Ollama passes no load mode itself"),
    PassThrough("LLAMA_ARG_ENDPOINT_METRICS", "The child answers /metrics on its own port."),
)

_OVERRULED: Final = (
    "LLAMA_ARG_MODEL",
    "LLAMA_ARG_HOST",
    "LLAMA_ARG_PORT",
    "LLAMA_ARG_CTX_SIZE",
    "LLAMA_ARG_N_PARALLEL",
    "LLAMA_ARG_FLASH_ATTN",
    "LLAMA_ARG_OFFLINE",
    "LLAMA_ARG_BATCH",
    "LLAMA_ARG_UBATCH",
    "LLAMA_ARG_LOG_VERBOSITY",
    "LLAMA_ARG_LOG_PREFIX",
    "LLAMA_ARG_LOG_TIMESTAMPS",
)

PASS_THROUGH: Final = {entry.name: entry for entry in _ACTS} | {
    name: PassThrough(name, "Ollama passes this flag itself, and a flag wins.", effective=False) for name in _OVERRULED
}
"""By name; a name that is missing here was not looked at."""

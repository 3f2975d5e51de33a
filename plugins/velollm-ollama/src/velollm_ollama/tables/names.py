"""Names outside the server's settings: never read by any release, or read by another of Ollama's programs."""

from __future__ import annotations

from typing import Final

NEVER: Final = {
    "OLLAMA_NUM_CTX": "num_ctx is a parameter of a request or model; the server-wide default is OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_NUM_BATCH": "num_batch is a parameter of a request or model",
    "OLLAMA_NUM_GPU": "num_gpu is a parameter of a request or model",
    "OLLAMA_NUM_THREAD": "num_thread is a parameter of a request or model",
    "OLLAMA_NUM_THREADS": "num_thread is a parameter of a request or model",
    "OLLAMA_GPU_LAYERS": "num_gpu is a parameter of a request or model",
    "OLLAMA_BATCH_SIZE": "num_batch is a parameter of a request or model",
    "OLLAMA_CACHE_TYPE_V": "OLLAMA_KV_CACHE_TYPE sets K and V alike",
    "OLLAMA_CACHE_TYPE_K": "OLLAMA_KV_CACHE_TYPE sets K and V alike",
    "OLLAMA_KV_CACHE": "the name is OLLAMA_KV_CACHE_TYPE",
    "OLLAMA_MMAP": "use_mmap is a parameter of a request or model",
    "OLLAMA_MLOCK": "no setting replaces it",
    "OLLAMA_CACHE_RAM": "from 0.30 on LLAMA_ARG_CACHE_RAM bounds the prompt cache, in MiB",
}
"""Names that people set and no release has ever read, with what to use instead."""

ELSEWHERE: Final = {
    "OLLAMA_API_KEY": "read by the client for Ollama's cloud",
    "OLLAMA_CLOUD_BASE_URL": "read by the server for its cloud proxy, undocumented",
    "OLLAMA_DOT_COM_URL": "read by the desktop app",
    "OLLAMA_APP_DB_PATH": "read by the desktop app",
    "OLLAMA_CORS": "read by the desktop app",
    "OLLAMA_EXPERIMENT": "read by the server for experiments, undocumented",
    "OLLAMA_LIBRARY_PATH": "set by the server for its own children",
    "OLLAMA_LLAMA_CPP_COMPAT": "read by the server when it quantizes, undocumented",
    "OLLAMA_SKILLS": "read by the command line client",
}
"""Names that Ollama's programs read outside the server's settings: neither written nor called unknown."""

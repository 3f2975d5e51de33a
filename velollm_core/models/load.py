"""How a model is loaded: the settings that decide its memory."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

FlashAttention = Literal["auto", "on", "off"]


@frozen
class LoadSettings:
    """One way to load a model, in llama.cpp's terms, which every GGUF engine shares.

    ``total_context`` is the cache's size in tokens over all slots (llama.cpp's ``-c``); ``parallel`` None means the
    server's own choice (4 slots sharing one cache); ``kv_unified`` None likewise follows the server. ``gpu_layers``
    counts the layers on the GPU, the output layer as one of them; ``cpu_moe_layers`` the layers whose experts stay
    in main memory all the same.
    """

    total_context: int
    parallel: int | None = 1
    kv_unified: bool | None = None
    type_k: str = "f16"
    type_v: str = "f16"
    flash_attn: FlashAttention = "auto"
    batch: int = 2048
    ubatch: int = 512
    swa_full: bool = False
    gpu_layers: int = 0
    cpu_moe_layers: int = 0
    mmap: bool = True

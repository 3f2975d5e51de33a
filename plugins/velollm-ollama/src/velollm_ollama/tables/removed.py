"""Variables that releases since 0.5.0 have dropped."""

from __future__ import annotations

from typing import Final

from velollm_ollama.variable import Variable

_START: Final = (0, 5, 0)

REMOVED: Final = (
    Variable(
        "OLLAMA_NEW_ENGINE",
        "bool",
        "Prefer Ollama's own engine.",
        defaults=(((0, 5, 12), "false"),),
        since=(0, 5, 12),
        until=(0, 30, 0),
        instead="every GGUF runs in llama-server now",
    ),
    Variable(
        "OLLAMA_MULTIUSER_CACHE",
        "bool",
        "Prompt cache for several users.",
        defaults=((_START, "false"),),
        until=(0, 30, 0),
        instead="llama-server keeps a prompt cache of its own (LLAMA_ARG_CACHE_RAM)",
    ),
    Variable(
        "OLLAMA_INTEL_GPU",
        "bool",
        "Look for Intel GPUs.",
        defaults=((_START, "false"),),
        until=(0, 12, 11),
        instead="Intel GPUs are reached through Vulkan (OLLAMA_VULKAN)",
    ),
    Variable(
        "OLLAMA_NEW_ESTIMATES",
        "bool",
        "Try the new memory estimates.",
        defaults=(((0, 11, 5), "false"),),
        since=(0, 11, 5),
        until=(0, 11, 11),
        instead="they became the only ones",
    ),
    Variable(
        "OLLAMA_MAX_VRAM",
        "uint",
        "Cap on GPU memory, bytes.",
        defaults=((_START, "0"),),
        until=(0, 7, 0),
        unit="bytes",
        instead="use LLAMA_ARG_FIT_TARGET",
    ),
    Variable(
        "OLLAMA_TMPDIR",
        "text",
        "Directory for unpacked runners.",
        until=(0, 5, 2),
        instead="nothing is unpacked any more",
    ),
)

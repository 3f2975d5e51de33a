"""Variables that change speed, memory or placement."""

from __future__ import annotations

from typing import Final

from velollm_ollama.variable import Variable

_START: Final = (0, 5, 0)

PERFORMANCE: Final = (
    Variable(
        "OLLAMA_CONTEXT_LENGTH",
        "uint",
        "Context of one request where neither the request nor the model sets num_ctx.",
        defaults=(((0, 5, 13), "2048"), ((0, 6, 7), "4096"), ((0, 15, 5), "0")),
        since=(0, 5, 13),
        unit="tokens",
        tunes=True,
        trap="0 means automatic: 4096, 32768 or 262144 by the GPUs' memory alone, whatever the model's size. "
        "It is multiplied by OLLAMA_NUM_PARALLEL. `8k` is refused with a warning in the log and the default stands.",
    ),
    Variable(
        "OLLAMA_NUM_PARALLEL",
        "uint",
        "Slots per model: requests that one model answers at a time.",
        defaults=((_START, "0"), ((0, 10, 0), "1")),
        unit="requests",
        tunes=True,
        trap="Every slot has a context of its own, so the cache grows with it. Some architectures and all embedding "
        "models are held at 1, said only in the log. Before 0.10 the default 0 meant 4, or 1 where memory was short.",
    ),
    Variable(
        "OLLAMA_FLASH_ATTENTION",
        "tristate",
        "Flash attention: unset leaves it to Ollama, 1 forces it on, 0 off.",
        defaults=((_START, "false"),),
        tunes=True,
        trap="`off`, `no` and `none` turn it ON. The log's `false` means 0 or unset. 0 with a quantized cache makes "
        "every model fail to load from 0.30 on.",
    ),
    Variable(
        "OLLAMA_KV_CACHE_TYPE",
        "kv_type",
        "Type of the KV cache, K and V alike, for every model.",
        tunes=True,
        trap="Not checked: from 0.30 on an unknown type makes every model fail to load, before it meant f16. A "
        "quantized type needs flash attention.",
    ),
    Variable(
        "OLLAMA_KEEP_ALIVE",
        "duration",
        "How long a model stays loaded after its last request; negative is forever, 0 unloads at once.",
        defaults=((_START, "5m0s"),),
        unit="Go duration, or whole seconds",
        tunes=True,
        trap="Text that is neither a duration nor a number (`soon`, `1d`) becomes 5m without a word.",
    ),
    Variable(
        "OLLAMA_MAX_LOADED_MODELS",
        "uint",
        "Models loaded at a time; 0 means three per GPU.",
        defaults=((_START, "0"),),
        unit="models",
        tunes=True,
    ),
    Variable(
        "OLLAMA_SCHED_SPREAD",
        "bool",
        "Spread each model over all GPUs, even where one would do.",
        defaults=((_START, "false"),),
        tunes=True,
        trap="`no` and `off` turn it ON.",
    ),
    Variable(
        "OLLAMA_GPU_OVERHEAD",
        "uint",
        "Bytes to leave free on each GPU.",
        defaults=((_START, "0"),),
        unit="bytes",
        tunes=True,
        inert_since=(0, 30, 0),
        trap="From 0.30 on it does not move a single layer of a GGUF model (use LLAMA_ARG_FIT_TARGET), and more than "
        "the GPU has wraps around to the largest default context. `8G` is refused with a warning in the log.",
    ),
    Variable(
        "OLLAMA_LLM_LIBRARY", "text", "Force one GPU library, such as `cuda_v12`, instead of detecting it.", tunes=True
    ),
    Variable(
        "OLLAMA_VULKAN",
        "bool",
        "Look for Vulkan devices.",
        defaults=(((0, 12, 11), "false"), ((0, 30, 0), "true")),
        since=(0, 12, 11),
        tunes=True,
        trap="Not read on macOS.",
    ),
    Variable(
        "OLLAMA_IGPU_ENABLE",
        "tristate",
        "Use integrated GPUs: unset leaves it to Ollama, which takes NVIDIA's and some of AMD's.",
        since=(0, 30, 0),
        tunes=True,
    ),
    Variable("CUDA_VISIBLE_DEVICES", "text", "NVIDIA GPUs that Ollama may see.", tunes=True),
    Variable("HIP_VISIBLE_DEVICES", "text", "AMD GPUs that Ollama may see, by number.", tunes=True),
    Variable("ROCR_VISIBLE_DEVICES", "text", "AMD GPUs that Ollama may see, by UUID or number.", tunes=True),
    Variable(
        "GGML_VK_VISIBLE_DEVICES",
        "text",
        "Vulkan devices that Ollama may see, by number.",
        since=(0, 12, 6),
        tunes=True,
    ),
    Variable("GPU_DEVICE_ORDINAL", "text", "AMD GPUs that Ollama may see, by number (older form).", tunes=True),
    Variable("HSA_OVERRIDE_GFX_VERSION", "text", "Take every AMD GPU for this gfx version.", tunes=True),
    Variable(
        "LLAMA_ARG_FIT",
        "text",
        "Whether llama.cpp fits layers to the free memory (`on`, `off`).",
        since=(0, 30, 0),
        tunes=True,
    ),
    Variable(
        "LLAMA_ARG_FIT_TARGET",
        "uint",
        "Memory to leave free on each GPU when layers are fitted; llama.cpp's default is 1024.",
        since=(0, 30, 0),
        unit="MiB",
        tunes=True,
        trap="Set by hand it also ends Ollama's own allowance for vision projectors.",
    ),
)

"""The parameters of a request or model (``api/types.go``), those that load it first."""

from __future__ import annotations

from typing import Final

from velollm_ollama.parameter import Parameter

_ALL: Final = (
    Parameter(
        "num_ctx",
        "int",
        "Context of one request.",
        "OLLAMA_CONTEXT_LENGTH, else by the GPUs' memory",
        loads=True,
        unit="tokens",
        low=4,
        high=2**24,
        trap="Above the trained context it is cut to that, said only in the log. A prompt that does not fit is cut "
        "without a word.",
    ),
    Parameter(
        "num_batch",
        "int",
        "Prompt tokens computed at a time (batch and ubatch alike).",
        "512; from 0.30 on 1024 or 2048 for a large context where memory allows",
        loads=True,
        unit="tokens",
        low=1,
        high=2**16,
    ),
    Parameter(
        "num_gpu",
        "int",
        "Layers on the GPU, the output layer as one of them; 0 is CPU only.",
        "-1: as many as fit",
        loads=True,
        unit="layers",
        low=-1,
        high=10_000,
        trap="Any number but -1 switches the fitting off: one layer too many fails to load or spills.",
    ),
    Parameter(
        "main_gpu", "int", "The one GPU to use, by number.", "chosen by free memory", loads=True, low=0, high=255
    ),
    Parameter(
        "num_thread",
        "int",
        "Threads that compute on the CPU.",
        "0: llama.cpp's choice, the physical cores",
        loads=True,
        unit="threads",
        low=0,
        high=4096,
    ),
    Parameter("use_mmap", "bool", "Map the file into memory instead of reading it.", "automatic", loads=True),
    Parameter(
        "draft_num_predict",
        "int",
        "Tokens drafted at a time by a model's own draft.",
        "4 with a draft model, else 0",
        loads=True,
        unit="tokens",
        low=0,
        high=64,
    ),
    Parameter("num_keep", "int", "Tokens kept at the start when the context is shifted.", "4", unit="tokens", low=-1),
    Parameter(
        "num_predict",
        "int",
        "The most tokens to produce.",
        "-1: at most ten contexts",
        unit="tokens",
        low=-2,
        trap="0 means without end, not nothing.",
    ),
    Parameter("seed", "int", "Seed of the sampler.", "-1: a new one each time"),
    Parameter("temperature", "float", "Randomness; 0 is greedy.", "0.8", low=0),
    Parameter("top_k", "int", "Keep the K likeliest tokens; 0 keeps all.", "40", low=0),
    Parameter("top_p", "float", "Keep the likeliest tokens up to this mass.", "0.9", low=0, high=1),
    Parameter("min_p", "float", "Drop tokens below this share of the likeliest.", "0", low=0, high=1),
    Parameter("typical_p", "float", "Locally typical sampling.", "1", low=0, high=1),
    Parameter("repeat_last_n", "int", "Tokens looked back at for repeats.", "64", unit="tokens", low=-1),
    Parameter("repeat_penalty", "float", "Penalty on repeats.", "1.0 (1.1 before 0.17.5)", low=0),
    Parameter("presence_penalty", "float", "Penalty on tokens seen.", "0"),
    Parameter("frequency_penalty", "float", "Penalty by how often a token was seen.", "0"),
    Parameter("stop", "text", "Text that ends the answer.", "the template's"),
)

PARAMETERS: Final = {parameter.name: parameter for parameter in _ALL}
LOADING: Final = tuple(parameter.name for parameter in _ALL if parameter.loads)
"""Those whose difference between two requests reloads the model."""

DEPRECATED: Final = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "tfs_z",
        "numa",
    }
)

"""KV cache types: which a version takes, and which need flash attention."""

from __future__ import annotations

from typing import Final

from velollm_ollama.version import Version

_LLAMA_CPP: Final = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_RUNNERS: Final = ("f16", "q8_0", "q4_0")
UNQUANTIZED: Final = frozenset({"", "f32", "f16", "bf16"})


def kv_types(version: Version | None) -> tuple[str, ...]:
    """The types that OLLAMA_KV_CACHE_TYPE may name; Ollama's own pages list only f16, q8_0 and q4_0."""
    return _RUNNERS if version is not None and version.engine == "runners" else _LLAMA_CPP


def is_quantized(kind: str) -> bool:
    """Whether a cache of that type needs flash attention."""
    return kind.lower() not in UNQUANTIZED

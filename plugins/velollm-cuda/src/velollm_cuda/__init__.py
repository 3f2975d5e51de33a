"""VeloLLM's own engine: Triton paged attention and continuous batching.

    from velollm_cuda import LLM, SamplingParams

These names are imported when they are first used: the package itself brings no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velollm_cuda.llm import LLM
    from velollm_cuda.output import Completion, Generation
    from velollm_cuda.params import SamplingParams

__all__ = ["LLM", "Completion", "Generation", "SamplingParams"]

_PLACES = {"LLM": "llm", "Completion": "output", "Generation": "output", "SamplingParams": "params"}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)

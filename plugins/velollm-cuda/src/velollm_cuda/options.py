"""What the engine can be told about how to run a model."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.errors import VeloError

SERVED_BATCH_TOKENS = 1024
"""``max_num_batched_tokens`` behind a server: who reads an answer waits for a step with others' prompts no longer than
for a few without."""
LEAST = {
    "max_model_len": 2, "kv_cache_bytes": 1, "max_num_seqs": 1, "max_num_batched_tokens": 1, "block_size": 1, "seed": 0,
}  # fmt: skip
ONE_OF = {
    "dtype": ("auto", "float32", "float16", "bfloat16"),
    "kv_cache_dtype": ("auto", "fp8"),
    "load_format": ("auto", "dummy"),
}


@frozen
class EngineOptions:
    """How a model is run.

    ``dtype`` ``auto`` takes the checkpoint's on a GPU and fp32 on a CPU. ``gpu_memory_utilization`` is the share of
    the card's memory that the engine may fill, others' use included; ``kv_cache_bytes`` overrides what is left for
    the cache. ``kv_cache_dtype`` ``fp8`` keeps keys and values in a byte each, scaled by what is measured at the start.
    ``max_model_len`` None means the model's own context, cut to what the cache can hold; one that is given must fit.
    ``load_format`` ``dummy`` draws random weights, for benchmarks.
    """

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str | None = None
    gpu_memory_utilization: float = 0.9
    kv_cache_bytes: int | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    enforce_eager: bool = False
    load_format: Literal["auto", "dummy"] = "auto"
    seed: int = 0

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning for any model.

        Raises:
            VeloError: names the option.
        """
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is None and name in ("max_model_len", "kv_cache_bytes"):
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise VeloError(f"{name} is {value!r}; it must be a whole number from {least}")
        for name, values in ONE_OF.items():
            if getattr(self, name) not in values:
                raise VeloError(f"{name} is {getattr(self, name)!r}; it must be {' or '.join(values)}")
        share = self.gpu_memory_utilization
        if not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise VeloError(f"gpu_memory_utilization is {share!r}; it must be above 0, at most 1")

"""Where a device's memory goes, and what that leaves for the KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from attrs import frozen

from velollm_core.engine.layout import KVCacheLayout
from velollm_core.errors import OutOfBlocks
from velollm_cuda.models.config import ModelConfig

if TYPE_CHECKING:
    from velollm_cuda.options import EngineOptions

CPU_CACHE_BYTES = 1 << 30
GRAPH_BYTES = 512 << 20
UNKNOWN = 1 << 62
ADVICE = "lower max_model_len, max_num_seqs or max_num_batched_tokens, raise gpu_memory_utilization, or free memory"


@frozen
class MemoryBudget:
    """Bytes of one device. ``free`` is what the engine may fill, the weights among it; the parts bear the names that
    they have in `velollm_core.models.breakdown`.

    ``compute`` is the activations of the largest step, ``output`` its logits and what sampling makes of them,
    ``overhead`` the CUDA graphs.
    """

    device: str
    free: int
    weights: int
    compute: int
    output: int
    overhead: int

    @classmethod
    def of(
        cls, config: ModelConfig, options: EngineOptions, device: torch.device, weights: int, *, loaded: bool = False
    ) -> MemoryBudget:
        """What the device has free now, before or after ``weights`` bytes are ``loaded``; a CPU's cache is one GiB."""
        there = weights if loaded else 0
        if device.type != "cuda":
            return cls("the CPU", min(weights + CPU_CACHE_BYTES, _host_memory() + there), weights, 0, 0, 0)
        torch.cuda.empty_cache()
        free, total = torch.cuda.mem_get_info(device)
        widest = 2 * config.feed_forward + 4 * config.hidden + 2 * (config.heads + config.kv_heads) * config.head_size
        return cls(
            device=torch.cuda.get_device_name(device),
            free=int(free - (1 - options.gpu_memory_utilization) * total) + there,
            weights=weights,
            compute=4 * max(options.max_num_batched_tokens, options.max_num_seqs) * widest,
            output=24 * options.max_num_seqs * config.vocabulary,
            overhead=0 if options.enforce_eager else GRAPH_BYTES,
        )

    @property
    def cache(self) -> int:
        """Bytes that are left for the KV cache; below zero, they are lacking."""
        return self.free - sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """What is taken, but by the cache."""
        return {"weights": self.weights, "compute": self.compute, "output": self.output, "overhead": self.overhead}

    def require(self, layout: KVCacheLayout, num_tokens: int, memory: int) -> None:
        """Refuse a cache of ``memory`` bytes that cannot hold one sequence of ``num_tokens``.

        Raises:
            OutOfBlocks: with all parts, and what to change.
        """
        counts = layout.num_blocks(max(memory, 0))
        loads = self.weights <= self.free
        if loads and all(count > needed for count, needed in zip(counts, layout.blocks_for(num_tokens), strict=True)):
            return
        least = layout.bytes_for(num_tokens) + sum(layout.bytes_per_block)
        parts = " + ".join(f"{name} {_gib(size)}" for name, size in self.parts.items() if size)
        given = loads and memory != self.cache
        room = f"kv {_gib(max(memory, 0))}" if given else f"{_gib(max(self.free, 0))} free for all"
        advice = ADVICE if loads else "take a smaller model or dtype, or free memory"
        raise OutOfBlocks(
            f"the model does not fit on {self.device}: {parts} + kv {_gib(least)} for {num_tokens} tokens at "
            f"{layout.bytes_per_token} bytes, and there is {room}; {advice}"
        )


def require_room(memory: int, device: torch.device) -> None:
    """Refuse a cache of ``memory`` bytes, as somebody wishes, where the device has no such room at all.

    Raises:
        OutOfBlocks: says how much there is.
    """
    there = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else _host_memory()
    if memory > there:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        raise OutOfBlocks(f"kv_cache_bytes asks for {_gib(memory)}, and {name} has {_gib(there)}; give fewer")


def longest_sequence(layout: KVCacheLayout, counts: tuple[int, ...], wanted: int) -> int:
    """How long a sequence can be, at most ``wanted``, where group ``i`` has ``counts[i]`` blocks.

    A group that holds its whole window bounds nothing.
    """
    for group, count in zip(layout.groups, counts, strict=True):
        if group.window is None or count - 1 < -(-group.window // layout.block_size) + 2:
            wanted = min(wanted, (count - 1) * layout.block_size)
    return wanted


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB" if size >= 1 << 24 else f"{size / 2**20:.2f} MiB"


def _host_memory() -> int:
    """Bytes of main memory that this process can still take; without bound where the system does not say."""
    from velollm_core.hardware.probe import detect_memory

    memory = detect_memory()
    return memory.available if memory.total else UNKNOWN

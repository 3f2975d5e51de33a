"""Putting an engine together: model, memory, scheduler and executor from a folder and a few limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from attrs import define, frozen
from torch import Tensor

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.scheduling import Scheduler
from velollm_core.errors import ModelFileError, OutOfBlocks
from velollm_cuda.executor import TorchExecutor
from velollm_cuda.kernels.choice import kernels_for
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.families import read_config
from velollm_cuda.models.parameters import Parameters
from velollm_cuda.models.transformer import KVCache, Transformer
from velollm_cuda.runner import ModelRunner
from velollm_cuda.state import SlotTable
from velollm_cuda.weights import load_parameters, random_parameters

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CPU_CACHE_BYTES = 1 << 30


@frozen
class EngineOptions:
    """How a model is run.

    ``dtype`` ``auto`` takes the checkpoint's on a GPU and fp32 on a CPU. ``gpu_memory_utilization`` is the share of
    the card's memory that the engine may fill, others' use included; ``kv_cache_bytes`` overrides what is left for
    the cache. ``max_model_len`` None means the model's own context, cut to what the cache can hold.
    ``load_format`` ``dummy`` draws random weights, for benchmarks.
    """

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: str | None = None
    gpu_memory_utilization: float = 0.9
    kv_cache_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    enforce_eager: bool = False
    load_format: Literal["auto", "dummy"] = "auto"
    seed: int = 0


@define(eq=False)
class Engine:
    """A loaded model with its loop."""

    config: ModelConfig
    limits: SchedulerLimits
    loop: EngineLoop
    blocks: BlockManager
    runner: ModelRunner


def read_model_config(folder: Path) -> ModelConfig:
    """The shape that ``config.json`` in ``folder`` gives.

    Raises:
        ModelFileError: it is missing, no JSON, or lacks a key.
        ModelRefused: the family is not one of ours.
    """
    path = folder / "config.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: not found; give a folder with config.json and safetensors files") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path}: holds no object")
    return read_config(document, str(path))


def build_engine(folder: Path, options: EngineOptions) -> Engine:
    """Load the model in ``folder`` and make it ready to run.

    Raises:
        ModelFileError, ModelRefused: the model cannot be read, or is not one of ours.
        OutOfBlocks: weights and a cache of any use do not fit in the memory that is free.
    """
    config = read_model_config(folder)
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = _dtype(options, config, device)
    if options.load_format == "dummy":
        parameters = random_parameters(config, dtype, device, options.seed)
    else:
        parameters = load_parameters(folder, config, dtype, device)
    return assemble(config, parameters, options, device, dtype)


def assemble(
    config: ModelConfig, parameters: Parameters, options: EngineOptions, device: torch.device, dtype: torch.dtype
) -> Engine:
    """The engine over parameters that are already on ``device``."""
    model = Transformer(config, parameters, kernels_for(device))
    layout = config.layout(options.block_size, dtype.itemsize)
    memory = options.kv_cache_bytes or _free_memory(model, options, device)
    counts = layout.num_blocks(memory)
    longest = options.max_model_len or config.context
    _check_room(layout, memory, counts, min(longest, options.block_size), parameters.bytes)
    blocks = default_block_manager(layout, memory)
    longest = min(longest, (min(counts) - 1) * options.block_size)
    limits = SchedulerLimits(
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=max(options.max_num_batched_tokens, options.max_num_seqs),
        max_model_len=longest,
    )
    state = SlotTable(options.max_num_seqs, device, layout, longest, config.vocabulary)
    runner = ModelRunner(
        model, _allocate(config, counts, options.block_size, dtype, device), state, options.enforce_eager
    )
    scheduler: Scheduler = default_scheduler(limits, blocks)
    return Engine(config, limits, EngineLoop(scheduler, TorchExecutor(runner)), blocks, runner)


def _dtype(options: EngineOptions, config: ModelConfig, device: torch.device) -> torch.dtype:
    if options.dtype != "auto":
        return DTYPES[options.dtype]
    return DTYPES.get(config.dtype, torch.bfloat16) if device.type == "cuda" else torch.float32


def _allocate(
    config: ModelConfig, counts: tuple[int, ...], block_size: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """A zeroed key and value tensor for each layer; the null block stays zero."""

    def half(group: int) -> Tensor:
        shape = (counts[group], block_size, config.kv_heads, config.head_size)
        return torch.zeros(shape, dtype=dtype, device=device)

    return [(half(group), half(group)) for group in config.group_of_layer]


def _free_memory(model: Transformer, options: EngineOptions, device: torch.device) -> int:
    """Bytes for the cache: what the utilization allows beyond what is taken, less a step's activations."""
    if device.type != "cuda":
        return CPU_CACHE_BYTES
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(device)
    config, tokens = model.config, options.max_num_batched_tokens
    widest = 2 * config.feed_forward + 4 * config.hidden + 2 * (config.heads + config.kv_heads) * config.head_size
    logits = 4 * options.max_num_seqs * config.vocabulary * 4
    graphs = 512 << 20
    return int(free - (1 - options.gpu_memory_utilization) * total - tokens * widest * 4 - logits - graphs)


def _check_room(layout: KVCacheLayout, memory: int, counts: tuple[int, ...], tokens: int, weights: int) -> None:
    if memory <= 0 or min(counts) < 2 + tokens // layout.block_size:
        raise OutOfBlocks(
            f"the model does not fit: weights take {weights / 2**30:.2f} GiB, which leaves {memory / 2**20:.0f} MiB "
            f"for a KV cache of {layout.bytes_per_token} bytes a token; free memory, or raise gpu_memory_utilization"
        )

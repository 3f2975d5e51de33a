"""Putting an engine together: model, memory, scheduler and executor from a folder and a few limits."""

from __future__ import annotations

from pathlib import Path

import torch
from attrs import define
from torch import Tensor

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.errors import ModelRefused, OutOfBlocks, VeloError
from velollm_cuda.executor import TorchExecutor
from velollm_cuda.kernels.choice import kernels_for
from velollm_cuda.memory import MemoryBudget, longest_sequence, require_room
from velollm_cuda.models.calibration import calibrated
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.parameters import Parameters
from velollm_cuda.models.reading import read_model_config
from velollm_cuda.models.transformer import KVCache, Transformer
from velollm_cuda.options import EngineOptions
from velollm_cuda.runner import ModelRunner
from velollm_cuda.state import SlotTable
from velollm_cuda.weights import empty_parameters, load_parameters, random_parameters

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
FP8_CAPABILITY = (8, 9)


@define(eq=False)
class Engine:
    """A loaded model with its loop."""

    config: ModelConfig
    limits: SchedulerLimits
    loop: EngineLoop
    blocks: BlockManager
    runner: ModelRunner


def build_engine(folder: Path, options: EngineOptions, parts: EngineParts = CORE) -> Engine:
    """Load the model in ``folder`` and make it ready to run; ``parts`` make its block manager and scheduler.

    Raises:
        ModelFileError, ModelRefused: the model cannot be read, or is not one of ours.
        OutOfBlocks: weights and cache do not fit in the memory that is free; said before anything is loaded.
        PluginError: a plugin that hands out a part of the engine does not.
        VeloError: an option is out of its range.
    """
    config = read_model_config(folder)
    _check_options(options, config)
    device = _device(options)
    dtype = _dtype(options, config, device)
    if options.kv_cache_bytes is not None:
        require_room(options.kv_cache_bytes, device)
    weights = empty_parameters(config, dtype, torch.device("meta")).bytes
    _size_cache(
        config, options, MemoryBudget.of(config, options, device, weights), _cache_dtype(options, dtype, device)
    )
    try:
        if options.load_format == "dummy":
            parameters = random_parameters(config, dtype, device, options.seed)
        else:
            parameters = load_parameters(folder, config, dtype, device)
        return assemble(config, parameters, options, device, dtype, parts)
    except torch.OutOfMemoryError as error:
        reason = str(error).partition(".")[0]
        raise OutOfBlocks(f"{folder}: {reason}; free memory, or lower gpu_memory_utilization") from error


def assemble(
    config: ModelConfig,
    parameters: Parameters,
    options: EngineOptions,
    device: torch.device,
    dtype: torch.dtype,
    parts: EngineParts = CORE,
) -> Engine:
    """The engine over parameters that are already on ``device``.

    Raises:
        OutOfBlocks, ModelRefused, VeloError: as `build_engine`.
    """
    _check_options(options, config)
    model = Transformer(config, parameters, kernels_for(device))
    cache_dtype = _cache_dtype(options, dtype, device)
    if cache_dtype != dtype:
        model.scales = calibrated(model, dtype)
    budget = MemoryBudget.of(config, options, device, parameters.bytes, loaded=True)
    layout, memory = _size_cache(config, options, budget, cache_dtype)
    counts = layout.num_blocks(memory)
    longest = longest_sequence(layout, counts, options.max_model_len or config.context)
    blocks = parts.allocate_kv(layout, memory)
    limits = SchedulerLimits(
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=max(options.max_num_batched_tokens, options.max_num_seqs),
        max_model_len=longest,
    )
    state = SlotTable(options.max_num_seqs, device, layout, longest, config.vocabulary)
    cache = _allocate(config, counts, options.block_size, cache_dtype, device)
    runner = ModelRunner(model, cache, state, options.enforce_eager)
    loop = EngineLoop(parts.schedule(limits, blocks), TorchExecutor(runner))
    return Engine(config, limits, loop, blocks, runner)


def _device(options: EngineOptions) -> torch.device:
    try:
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise VeloError(f"device is {options.device!r}; it must be cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise VeloError(f"device is {options.device!r}; it must be cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise VeloError(f"device is {options.device!r} and torch {torch.__version__} sees {count} GPUs; give another")
    return device


def _check_options(options: EngineOptions, config: ModelConfig) -> None:
    if options.max_model_len is not None and options.max_model_len > config.context:
        raise VeloError(f"max_model_len is {options.max_model_len}; this model takes 2 to {config.context} tokens")


def _dtype(options: EngineOptions, config: ModelConfig, device: torch.device) -> torch.dtype:
    if options.dtype != "auto":
        return DTYPES[options.dtype]
    return DTYPES.get(config.dtype, torch.bfloat16) if device.type == "cuda" else torch.float32


def _cache_dtype(options: EngineOptions, dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if options.kv_cache_dtype == "auto":
        return dtype
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        found = ".".join(map(str, torch.cuda.get_device_capability(device)))
        raise ModelRefused(f"kv_cache_dtype fp8 needs a card of compute capability 8.9 or newer; this one has {found}")
    return torch.float8_e4m3fn


def _size_cache(
    config: ModelConfig, options: EngineOptions, budget: MemoryBudget, dtype: torch.dtype
) -> tuple[KVCacheLayout, int]:
    """The cache's layout and its bytes: room for the length that was asked for, or for two blocks at the least."""
    layout = config.layout(options.block_size, dtype.itemsize)
    memory = budget.cache if options.kv_cache_bytes is None else options.kv_cache_bytes
    budget.require(layout, options.max_model_len or min(config.context, 2 * options.block_size), memory)
    return layout, memory


def _allocate(
    config: ModelConfig, counts: tuple[int, ...], block_size: int, dtype: torch.dtype, device: torch.device
) -> KVCache:
    """A zeroed key and value tensor for each layer; the null block stays zero."""

    def half(group: int) -> Tensor:
        shape = (counts[group], block_size, config.kv_heads, config.head_size)
        return torch.zeros(shape, dtype=dtype, device=device)

    return [(half(group), half(group)) for group in config.group_of_layer]

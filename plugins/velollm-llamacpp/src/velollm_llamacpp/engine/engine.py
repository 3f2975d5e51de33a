"""Putting an engine together: a child with the model, block manager, scheduler, loop."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from attrs import define

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.errors import BackendError, ModelFileError, ModelRefused
from velollm_llamacpp.engine.executor import LlamaCppExecutor
from velollm_llamacpp.engine.kv_cache import PagedKvCache
from velollm_llamacpp.engine.messages import Load, Loaded
from velollm_llamacpp.engine.options import EngineOptions
from velollm_llamacpp.engine.process import WorkerProcess
from velollm_llamacpp.engine.text import ModelText
from velollm_llamacpp.library import find_library


@define(eq=False)
class Engine:
    """A loaded model with its loop; use it as a context manager, or call `close`, to end its process."""

    options: EngineOptions
    facts: Loaded
    limits: SchedulerLimits
    blocks: BlockManager
    executor: LlamaCppExecutor
    loop: EngineLoop
    text: ModelText

    @property
    def cache_bytes(self) -> int:
        """Bytes of llama.cpp's KV buffer; fixed from the start."""
        return self.facts.cells * self.blocks.layout.bytes_per_token

    def close(self) -> None:
        """End the child."""
        self.executor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_engine(model: Path, options: EngineOptions | None = None, parts: EngineParts = CORE) -> Engine:
    """Load ``model``, a GGUF file, in a child process.

    ``parts`` make block manager and scheduler: the core's own, or what `velollm_core.parts.installed_parts` finds.

    Raises:
        ModelFileError: there is no such file.
        PluginError: a plugin that hands out a part does not.
        ModelRefused: llama.cpp, or this engine, would not run it.
        BackendError: the library is not there, or the child died while loading.
    """
    options = options or EngineOptions()
    library = find_library()
    if library is None:
        raise BackendError("llamacpp: xllamacpp is not installed; `pip install velollm[llamacpp]` brings it")
    if not model.is_file():
        raise ModelFileError(f"{model}: not found; give a GGUF file")
    process = WorkerProcess(options.step_seconds)
    try:
        facts = process.load(_request(library, model, options))
        return _assemble(ModelText(model.stem, process, facts), options, parts)
    except BaseException:
        process.close()
        raise


def _request(library: Path, model: Path, options: EngineOptions) -> Load:
    return Load(
        library=str(library),
        model=str(model),
        cells=options.cells,
        num_sequences=options.num_live + options.num_lanes,
        batch=options.batch,
        ubatch=options.ubatch,
        threads=options.threads,
        gpu_layers=options.gpu_layers,
        flash_attn=options.flash_attn,
        type_k=options.type_k,
        type_v=options.type_v,
        margins=options.margins,
    )


def _assemble(text: ModelText, options: EngineOptions, parts: EngineParts) -> Engine:
    facts = text.facts
    if options.context is not None and options.context > facts.training_context:
        raise ModelRefused(
            f"{text.name}: context is {options.context}, and it was trained for {facts.training_context}"
        )
    # llama.cpp keeps every layer's tokens at full length here, windows too: one group tells the truth.
    group = KVGroup(facts.layers, max(1, (facts.cache_bytes or facts.layers * facts.cells) // facts.cells))
    layout = KVCacheLayout((group,), options.block_size)
    blocks = parts.allocate_kv(layout, (options.num_blocks + 1) * sum(layout.bytes_per_block))
    pool = options.num_blocks * options.block_size
    limits = SchedulerLimits(
        max_num_seqs=options.parallel,
        max_num_batched_tokens=min(options.batch, facts.batch),
        max_model_len=min(options.context or facts.training_context, facts.training_context, pool),
        swap_tokens=options.swap_bytes // layout.bytes_per_token,
    )
    cache = PagedKvCache(options.block_size, options.num_live, options.num_lanes)
    executor = LlamaCppExecutor(text.process, cache)
    loop = EngineLoop(parts.schedule(limits, blocks), executor)
    return Engine(options, facts, limits, blocks, executor, loop, text)

"""A loaded model as servers and streams see it: an engine that runs by itself, and the model's way with text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from attrs import frozen

from velollm_core.engine.async_engine import AsyncEngine
from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.engine.process_engine import ProcessEngine
from velollm_core.engine.streams import StreamingEngine
from velollm_cuda.asks import Asks
from velollm_cuda.generation import GenerationConfig
from velollm_cuda.hub import find_model
from velollm_cuda.options import EngineOptions
from velollm_cuda.text import CudaTextModel

if TYPE_CHECKING:
    from velollm_core.engine.loop import EngineLoop


@frozen
class EngineFacts:
    """What a loaded engine says of itself: the most tokens of a sequence, and torch's device."""

    max_model_len: int
    device: str


def core_parts() -> EngineParts:
    """The core's own block manager and scheduler, whatever is installed."""
    return CORE


def open_loop(
    folder: Path, options: EngineOptions, parts: Callable[[], EngineParts]
) -> tuple[EngineLoop, EngineFacts]:  # fmt: skip
    """Load the model in ``folder`` and capture the graphs of steps as its authors sample, and of greedy ones.

    Raises:
        VeloError: as `velollm_cuda.engine.build_engine`.
    """
    # Torch takes seconds to import, and a process that only serves needs none of it.
    from velollm_cuda.engine import build_engine

    engine = build_engine(folder, options, parts())
    usual = Asks.of(GenerationConfig.load(folder).params)
    engine.runner.warm_up(engine.limits.max_num_batched_tokens, usual)
    return engine.loop, EngineFacts(engine.limits.max_model_len, str(engine.runner.state.device))


@frozen(eq=False)
class ServedModel:
    """``running`` is the engine, ``text`` how its model reads and writes."""

    text: CudaTextModel
    running: StreamingEngine
    facts: EngineFacts

    @classmethod
    def load(
        cls, model: str | Path, options: EngineOptions, *, name: str | None = None, revision: str | None = None,
        max_waiting: int = 1024, parts: Callable[[], EngineParts] = core_parts,
    ) -> ServedModel:  # fmt: skip
        """Load ``model``, a folder or a hub id, into this process; requests call it ``name``.

        More than ``max_waiting`` requests in the queue are turned away. ``parts`` gives what makes block manager and
        scheduler.

        Raises:
            ModelFileError: the model cannot be found or read.
            ModelRefused: it is none that this engine runs.
            OutOfBlocks: it does not fit in the memory that is free.
        """
        folder = find_model(model, revision=revision, weights=options.load_format != "dummy")
        loop, facts = open_loop(folder, options, parts)
        text = CudaTextModel.load(folder, name or str(model))
        return cls(text, AsyncEngine(loop, max_waiting=max_waiting), facts)

    @classmethod
    def start(
        cls, model: str | Path, options: EngineOptions, *, name: str | None = None, revision: str | None = None,
        max_waiting: int = 1024, parts: Callable[[], EngineParts] = core_parts,
    ) -> ServedModel:  # fmt: skip
        """As `load`, but the engine has a process of its own: for servers, which have enough to do with their readers.

        ``parts`` is called there: it must be picklable.

        Raises:
            VeloError: as `load`.
        """
        folder = find_model(model, revision=revision, weights=options.load_format != "dummy")
        engine = ProcessEngine(open_loop, folder, options, parts, max_waiting=max_waiting)
        try:
            text = CudaTextModel.load(folder, name or str(model))
            return cls(text, engine, cast(EngineFacts, engine.ready()))
        except BaseException:
            engine.close()
            raise

    def close(self) -> None:
        """End the engine; open streams raise."""
        self.running.close()

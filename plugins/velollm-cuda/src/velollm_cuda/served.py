"""A loaded model as servers and streams see it: an engine that runs by itself, and the model's way with text."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from attrs import frozen

from velollm_core.backends.request import Message
from velollm_core.engine.async_engine import AsyncEngine
from velollm_core.engine.parts import CORE, EngineParts
from velollm_cuda.detokenize import Detokenizer
from velollm_cuda.engine import Engine, EngineOptions, build_engine
from velollm_cuda.generation import GenerationConfig
from velollm_cuda.hub import find_model
from velollm_cuda.params import SamplingParams
from velollm_cuda.tokens import Tokenizer


@frozen(eq=False)
class CudaTextModel:
    """Implements `velollm_core.serving.text_model.TextModel` over a model's own tokenizer and template.

    ``sampling`` is how the model's authors sample, in the words of `SamplingParams`.
    """

    name: str
    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    vocab_size: int
    sampling: Mapping[str, float] = {}

    @classmethod
    def load(cls, folder: Path, name: str, vocabulary: int) -> CudaTextModel:
        """The text side of the model in ``folder``; the embedding has ``vocabulary`` rows.

        Raises:
            ModelFileError: a file is missing or cannot be read.
            VeloError: the authors' way of sampling has no meaning.
        """
        tokenizer, generation = Tokenizer.load(folder), GenerationConfig.load(folder)
        own = SamplingParams(**generation.sampling)  # type: ignore[arg-type]
        sampling = {each: getattr(own, each) for each in generation.sampling}
        return cls(name, tokenizer, stop_ids(generation, tokenizer), vocabulary, sampling)

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, with what the model expects at a beginning."""
        return self.tokenizer.encode(text)

    def chat(self, messages: Sequence[Message], **switches: object) -> list[int]:
        """The tokens of a conversation up to where the answer begins; ``switches`` are the template's own.

        Raises:
            VeloError: the model has no template, or its template refuses these messages.
        """
        turns = [{"role": each.role, "content": each.content} for each in messages]
        return self.tokenizer.encode_chat(turns, **switches)  # type: ignore[arg-type]

    def detokenizer(self) -> Detokenizer:
        """A fresh one, for one answer."""
        return self.tokenizer.detokenizer()


@frozen(eq=False)
class ServedModel:
    """``engine`` is what was loaded, ``running`` the thread that drives it. `close` gives the memory back."""

    text: CudaTextModel
    engine: Engine
    running: AsyncEngine

    @classmethod
    def load(
        cls, model: str | Path, options: EngineOptions, *, name: str | None = None, revision: str | None = None,
        max_waiting: int = 1024, parts: EngineParts = CORE,
    ) -> ServedModel:  # fmt: skip
        """Load ``model``, a folder or a hub id, and capture its graphs; requests call it ``name``.

        More than ``max_waiting`` requests in the queue are turned away. ``parts`` make block manager and scheduler.

        Raises:
            ModelFileError: the model cannot be found or read.
            ModelRefused: it is none that this engine runs.
            OutOfBlocks: it does not fit in the memory that is free.
        """
        folder = find_model(model, revision=revision, weights=options.load_format != "dummy")
        engine = build_engine(folder, options, parts)
        text = CudaTextModel.load(folder, name or str(model), engine.config.vocabulary)
        engine.runner.warm_up()
        return cls(text, engine, AsyncEngine(engine.loop, max_waiting=max_waiting))

    def close(self) -> None:
        """End the engine's thread; open streams raise."""
        self.running.close()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def stop_ids(generation: GenerationConfig, tokenizer: Tokenizer | None) -> frozenset[int]:
    """The tokens that end an answer: those of the configuration, and the tokenizer's own end of text."""
    own = tokenizer.eos_id if tokenizer else None
    return frozenset(generation.eos_ids) | (frozenset() if own is None else {own})

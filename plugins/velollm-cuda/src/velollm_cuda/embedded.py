"""The engine inside this process, for whoever asks the backend without a server."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING
from uuid import uuid4

from attrs import define, evolve, field

from velollm_core.backends.request import Chunk, Request, Usage
from velollm_core.errors import BackendError, VeloError

if TYPE_CHECKING:
    from velollm_core.engine.sequence import Sequence
    from velollm_core.serving.answers import Piece
    from velollm_cuda.options import EngineOptions
    from velollm_cuda.served import ServedModel

WITH_RUNNER_UP = 2


@define(eq=False)
class EmbeddedEngine:
    """Holds one model at a time, loaded when it is first asked for. Streams may come from any event loop."""

    options: EngineOptions | None = None
    _model: ServedModel | None = field(init=False, default=None)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    @property
    def model(self) -> str | None:
        """What requests call the model that is loaded, None before there is one."""
        return self._model.text.name if self._model else None

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Answer ``request``; its model is a folder or a hub id.

        Raises:
            BackendError: the model cannot be loaded, or the request cannot be served; the text says why.
        """
        from velollm_core.serving.answers import answer

        try:
            model = await asyncio.to_thread(self.load, request.model)
            sequence = await asyncio.to_thread(_sequence, model, request)
            async with aclosing(answer(model.running, sequence, model.text, 0)) as pieces:
                async for piece in pieces:
                    yield _chunk(piece, sequence)
        except BackendError:
            raise
        except VeloError as error:
            raise BackendError(f"cuda: {error}", kind="request") from error

    def load(self, name: str) -> ServedModel:
        """The model called ``name``; another that is loaded makes room for it first.

        Raises:
            VeloError: it cannot be loaded.
        """
        from velollm_core.parts import installed_parts
        from velollm_cuda.options import EngineOptions
        from velollm_cuda.served import ServedModel

        with self._lock:
            if self._model is not None and self._model.text.name != name:
                self._drop()
            if self._model is None:
                options = self.options or EngineOptions()
                self._model = ServedModel.load(name, options, parts=installed_parts)
            return self._model

    def close(self) -> None:
        """Give the memory back; the next stream loads again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._model is None:
            return
        self._model.close()
        self._model = None
        _give_back_memory()


def _give_back_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sequence(model: ServedModel, request: Request) -> Sequence:
    from velollm_core.engine.sequence import Sequence
    from velollm_cuda.prompt import check_ids

    text, sampling = model.text, request.sampling
    if sampling.logprobs:
        sampling = evolve(sampling, top_logprobs=max(sampling.top_logprobs, WITH_RUNNER_UP))
    prompt = text.chat(request.messages) if request.messages else text.encode(request.prompt)
    check_ids([prompt], text.vocab_size)
    stops = frozenset[int]() if sampling.ignore_eos else text.stop_ids
    return Sequence(f"embedded-{uuid4().hex}", prompt, sampling, stops, use_cache=request.cache_prompt)


def _chunk(piece: Piece, sequence: Sequence) -> Chunk:
    margin = _margin(piece)
    if piece.finish_reason is None:
        return Chunk(piece.text, margin=margin)
    usage = Usage(sequence.num_prompt_tokens, piece.num_tokens, piece.cached_tokens)
    return Chunk(piece.text, finish_reason=piece.finish_reason, usage=usage, margin=margin)


def _margin(piece: Piece) -> float | None:
    """The lead of the likeliest token where the piece's first one was chosen; None where nobody asked for it."""
    likeliest = piece.logprobs[0].alternatives if piece.logprobs else ()
    return likeliest[0].value - likeliest[1].value if len(likeliest) > 1 else None

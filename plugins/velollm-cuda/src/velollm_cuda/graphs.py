"""Decode steps as CUDA graphs: a ladder of batch sizes, captured when first needed, padded up to."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

Body = Callable[[Tensor], Tensor]
Key = tuple[int, Hashable]


def rung(batch: int) -> int:
    """The size of the graph that serves ``batch`` sequences: 1, 2, 4, then by 8 to 256, then by 32."""
    if batch <= 2:
        return batch
    if batch <= 4:
        return 4
    step = 8 if batch <= 256 else 32
    return -(-batch // step) * step


@define(eq=False)
class GraphLadder:
    """Replays ``body(rows [N] int32) -> tokens [N]`` for a padded N; ``nobody`` is the row that padding points at."""

    nobody: int
    device: torch.device
    _graphs: dict[Key, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = field(init=False, factory=dict)
    _last: tuple[Key, list[int]] | None = field(init=False, default=None)
    _pool: _POOL_HANDLE | None = field(init=False, default=None)
    _stream: torch.cuda.Stream | None = field(init=False, default=None)

    def warm(self, largest: int, body: Body, variant: Hashable) -> None:
        """Capture every size up to ``largest`` now, large to small, so that no request waits for a capture."""
        for size in sorted({rung(batch) for batch in range(1, largest + 1)}, reverse=True):
            if (size, variant) not in self._graphs:
                self._capture((size, variant), body)

    def replay(self, rows: list[int], body: Body, variant: Hashable) -> Tensor:
        """Tokens ``[len(rows)]``; each ``variant`` has a ladder of its own, for its own body."""
        key = (rung(len(rows)), variant)
        if key not in self._graphs:
            self._capture(key, body)
        graph, static, tokens = self._graphs[key]
        if self._last != (key, rows):
            padded = rows + [self.nobody] * (key[0] - len(rows))
            static.copy_(torch.tensor(padded, dtype=torch.int32, pin_memory=True), non_blocking=True)
            self._last = (key, rows)
        graph.replay()
        return tokens[: len(rows)]

    def _capture(self, key: Key, body: Body) -> None:
        """Run once on padding alone, which touches no sequence and compiles every kernel, then capture.

        `torch.cuda.graph` would collect garbage and empty the cache first, which takes far longer than the capture.
        """
        static = torch.full((key[0],), self.nobody, dtype=torch.int32, device=self.device)
        stream = self._stream = self._stream or torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            body(static)
            torch.cuda.synchronize()
            graph.capture_begin(pool=self._pool)
            try:
                tokens = body(static)
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(stream)
        self._pool = self._pool or graph.pool()
        self._graphs[key] = (graph, static, tokens)
        self._last = None

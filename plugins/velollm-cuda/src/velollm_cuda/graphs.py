"""Steps as CUDA graphs: one for each size that a step is padded up to."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE

Body = Callable[[Tensor], Tensor]


def rung(batch: int) -> int:
    """The size of the graph that serves ``batch`` sequences: 1, 2, 4, then by 8 to 256, then by 32."""
    if batch <= 2:
        return batch
    if batch <= 4:
        return 4
    step = 8 if batch <= 256 else 32
    return -(-batch // step) * step


def rungs(largest: int) -> Iterator[int]:
    """Every size up to that for ``largest``, the largest first."""
    return iter(sorted({rung(batch) for batch in range(1, largest + 1)}, reverse=True))


@define(eq=False)
class _Captured:
    """A graph, the integers it reads, the tokens it leaves, and the integers it read last."""

    graph: torch.cuda.CUDAGraph
    static: Tensor
    tokens: Tensor
    last: list[int]


@define(eq=False)
class GraphPool:
    """Graphs by their keys, all in the same memory: steps follow one another."""

    device: torch.device
    _graphs: dict[Hashable, _Captured] = field(init=False, factory=dict)
    _pool: _POOL_HANDLE | None = field(init=False, default=None)
    _stream: torch.cuda.Stream | None = field(init=False, default=None)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._graphs

    def __len__(self) -> int:
        return len(self._graphs)

    def replay(self, key: Hashable, values: list[int]) -> Tensor:
        """The tokens that the graph of ``key`` leaves after reading ``values``, as many as it was captured for."""
        captured = self._graphs[key]
        if captured.last != values:
            fresh = torch.tensor(values, dtype=captured.static.dtype, pin_memory=True)
            captured.static.copy_(fresh, non_blocking=True)
            captured.last = values
        captured.graph.replay()
        return captured.tokens

    def capture(self, key: Hashable, idle: list[int], body: Body) -> None:
        """Run ``body`` once on ``idle``, which touches no sequence, to compile every kernel; then capture.

        `torch.cuda.graph` would collect garbage and empty the cache first, which takes far longer than the capture.
        """
        static = torch.tensor(idle, dtype=torch.int64, device=self.device)
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
        self._graphs[key] = _Captured(graph, static, tokens, idle)

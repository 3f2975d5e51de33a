"""Which of torch's two libraries multiplies: measured on the card, for each matrix of a model and a few batch sizes.

Neither is faster everywhere: for 128 tokens and a matrix of 14336 × 4096 cuBLASLt takes 46 µs and cuBLAS 53, for 192
and 8192 × 2048 it is 24 and 19 (H100, torch 2.11). Torch's choice holds for the whole process; here it is made while a
graph is captured, which remembers it.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from attrs import frozen
from torch import Tensor

from velollm_cuda.models.transformer import Linear

Library = Literal["cublas", "cublaslt"]
Shape = tuple[int, int]

BATCHES = (16, 32, 64, 128, 192, 256, 512, 1024)
# Matrices that are read in turn until they are no longer in the card's cache.
COLD_BYTES = 128 << 20
REPLAYS = 3
# Less than this is noise.
GAIN = 0.98


@frozen
class Products:
    """``plain`` by the library that is faster for a matrix, whose shapes ``faster`` has, at each of `BATCHES`."""

    plain: Linear
    faster: Mapping[Shape, tuple[Library, ...]]

    @classmethod
    def measured(cls, plain: Linear, matrices: Iterable[Tensor]) -> Products:
        """Time both libraries on ``matrices`` ``[N, K]``, those of a shape in turn."""
        with silence(), using("cublaslt"):
            pass  # the first time, torch says that the choice is experimental
        alike: dict[Shape, list[Tensor]] = {}
        for matrix in matrices:
            alike.setdefault((matrix.shape[0], matrix.shape[1]), []).append(matrix)
        return cls(
            plain,
            {shape: tuple(_faster(plain, _cold(those), batch) for batch in BATCHES) for shape, those in alike.items()},
        )

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """``x [T, K] @ weight [N, K].T + bias [N]``."""
        libraries = self.faster.get((weight.shape[0], weight.shape[1]))
        if libraries is None or len(x) == 1:
            return self.plain(x, weight, bias)
        with using(libraries[min(bisect_left(BATCHES, len(x)), len(BATCHES) - 1)]):
            return self.plain(x, weight, bias)


@contextmanager
def using(library: Library) -> Iterator[None]:
    """Let torch multiply by ``library`` meanwhile."""
    before = torch.backends.cuda.preferred_blas_library(None)
    torch.backends.cuda.preferred_blas_library(library)
    try:
        yield
    finally:
        torch.backends.cuda.preferred_blas_library(before)


@contextmanager
def silence() -> Iterator[None]:
    """What native code says on stderr meanwhile is dropped."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _faster(plain: Linear, matrices: Sequence[Tensor], batch: int) -> Library:
    # Zeros would take less power than tokens do, and clocks would be higher.
    x = torch.randn(batch, matrices[0].shape[1], dtype=matrices[0].dtype, device=matrices[0].device)
    with using("cublaslt"):
        other = _milliseconds(lambda: [plain(x, matrix) for matrix in matrices])
    with using("cublas"):
        usual = _milliseconds(lambda: [plain(x, matrix) for matrix in matrices])
    return "cublaslt" if other < GAIN * usual else "cublas"


def _milliseconds(call: Callable[[], object]) -> float:
    """The least of a few replays of ``call`` as a graph: the host's pace does not matter."""
    graph, times, stream = torch.cuda.CUDAGraph(), list[float](), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
        torch.cuda.synchronize()
        graph.capture_begin()
        try:
            call()
        finally:
            graph.capture_end()
        for _ in range(1 + REPLAYS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end))
    return min(times[1:])


def _cold(matrices: Sequence[Tensor]) -> list[Tensor]:
    """As many of ``matrices`` as the card's cache cannot keep from one round to the next."""
    found: list[Tensor] = []
    for matrix in matrices:
        if sum(each.nbytes for each in found) > COLD_BYTES:
            break
        found.append(matrix)
    return found

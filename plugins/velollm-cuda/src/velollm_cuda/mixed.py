"""A step that has chunks of prompts: all of it as one list of integers, at its own sizes or at those of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain

import torch
from attrs import frozen
from torch import Tensor

from velollm_core.engine.output import ScheduledChunk
from velollm_cuda.kernels.tiles import TilePlan, cut, tile_rows
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.state import SlotTable

DECODES = (0, 4, 16, 64, 128, 256, 384, 512)
TOKENS = (*range(128, 1024, 128), *range(1024, 2049, 256))
CHUNKS = 32


@frozen
class MixedShape:
    """How much a step has room for: ``decodes``, ``tokens`` of ``chunks``, rows that are ``sampled``, and ``tiles`` of
    ``tile_rows`` rows.

    A roomy one has a chunk more than may be used, which padding belongs to.
    """

    decodes: int
    tokens: int
    chunks: int
    sampled: int
    tiles: int
    tile_rows: int

    @classmethod
    def roomy(
        cls, decodes: int, tokens: int, chunks: int, config: ModelConfig, device: torch.device
    ) -> MixedShape | None:
        """The least of the ladder that ``decodes`` and ``tokens`` of ``chunks`` fit in; None beyond it."""
        if tokens > TOKENS[-1] or chunks >= CHUNKS or decodes > DECODES[-1]:
            return None
        decodes = next(size for size in DECODES if size >= decodes)
        tokens = next(size for size in TOKENS if size >= tokens)
        rows = tile_rows(tokens * config.kv_heads, config.group, config.head_size, device)
        tiles = -(-tokens // (rows // config.group)) + CHUNKS
        return cls(decodes, tokens, CHUNKS, decodes + CHUNKS, tiles, rows)

    @property
    def parts(self) -> tuple[int, ...]:
        """The lengths of what a step's numbers consist of, in their order."""
        return (
            self.decodes, self.tokens, self.chunks, self.chunks + 1, self.chunks, self.sampled, self.sampled,
            3 * self.tiles,
        )  # fmt: skip


def numbers(
    rows: list[int], chunks: Sequence[ScheduledChunk], state: SlotTable, config: ModelConfig, shape: MixedShape | None
) -> tuple[list[int], MixedShape]:  # fmt: skip
    """The step of decodes at ``rows`` and of ``chunks`` as integers for `MixedStep`, and their shape.

    With a ``shape`` they are padded to it; without one they have their own.
    """
    counts = [len(chunk.token_ids) for chunk in chunks]
    ends = list(accumulate(counts, initial=0))
    taken = [state.row(chunk.sequence) for chunk in chunks]
    lengths = [chunk.start + count for chunk, count in zip(chunks, counts, strict=True)]
    height = (
        shape.tile_rows
        if shape
        else tile_rows(ends[-1] * config.kv_heads, config.group, config.head_size, state.device)
    )
    tiles = cut(counts, lengths, taken, height // config.group)
    samples = [index for index, chunk in enumerate(chunks) if chunk.samples]
    first = shape.decodes if shape else len(rows)
    parts: list[tuple[list[int], int]] = [
        (rows, state.nobody),
        (list(chain.from_iterable(chunk.token_ids for chunk in chunks)), 0),
        (taken, state.nobody),
        (ends, ends[-1]),
        (lengths, 0),
        ([*range(len(rows)), *(first + ends[index + 1] - 1 for index in samples)], 0),
        ([*rows, *(taken[index] for index in samples)], state.nobody),
        (tiles, -1),
    ]
    if shape is None:
        sizes = len(rows), ends[-1], len(chunks), len(rows) + len(samples), len(tiles) // 3
        return list(chain.from_iterable(values for values, _ in parts)), MixedShape(*sizes, height)
    padded = (
        values + [filler] * (size - len(values)) for (values, filler), size in zip(parts, shape.parts, strict=True)
    )
    return list(chain.from_iterable(padded)), shape


@frozen(eq=False)
class MixedStep:
    """A mixed step on the device: decodes at slot-table ``rows [R]`` int32, then ``tokens [T]`` of chunks.

    ``positions [T]`` and ``token_rows [T]`` int64 say where each of those is, ``real [T]`` which are no padding;
    ``chunk_rows [C]`` are the rows of the chunks, ``sampled [S]`` the tokens whose logits count, decodes first, and
    ``sampled_rows [S]`` their rows.
    """

    rows: Tensor
    tokens: Tensor
    positions: Tensor
    token_rows: Tensor
    real: Tensor
    chunk_rows: Tensor
    sampled: Tensor
    sampled_rows: Tensor
    tiles: TilePlan

    @classmethod
    def of(cls, flat: Tensor, shape: MixedShape) -> MixedStep:
        """Out of the `numbers` of a step, int64."""
        rows, tokens, chunk_rows, starts, lengths, sampled, sampled_rows, tiles = flat.split(shape.parts)
        index = torch.arange(shape.tokens, device=flat.device)
        chunk = torch.searchsorted(starts[1:], index, right=True).clamp_(max=shape.chunks - 1)
        real = index < starts[-1]
        # The first position of each chunk is its length less its tokens.
        position = (lengths - starts.diff())[chunk] + index - starts[chunk]
        plan = TilePlan(tiles.int().view(-1, 3), starts.int(), lengths.int(), shape.tile_rows)
        return cls(
            rows.int(), tokens, torch.where(real, position, 0), chunk_rows[chunk], real, chunk_rows, sampled,
            sampled_rows, plan,
        )  # fmt: skip

    def slots(self, table: Tensor, block_size: int) -> Tensor:
        """Where each token goes in the cache of one KV group, int64 ``[T]``; -1 for padding."""
        block = table[self.token_rows, self.positions // block_size].long()
        return torch.where(self.real, block * block_size + self.positions % block_size, -1)

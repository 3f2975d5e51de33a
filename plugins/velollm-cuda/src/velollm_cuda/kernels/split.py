"""How the decode attention of a step is cut into equal pieces of work: once a step, on the device, for all layers.

Sequences are as long as they are; programs should not be. Each sequence is cut into as many splits of equal length as
bring the whole step between ``fewest`` and ``programs`` pieces for each KV head. The number of items is bounded by a constant, so a graph
can be captured over it; those beyond the step's work are marked empty.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from attrs import evolve, frozen
from torch import Tensor

FIELDS = 6
ITEMS_PER_PROGRAM = 8
# Sequences that have the card to themselves.
ALONE = 2
RANKED = 16
# The most pieces that `decode` merges at a time.
MERGED = 32


@frozen
class SplitPlan:
    """The pieces of one step's decode attention.

    ``order`` is int32 ``[batch]``: the sequences, the longest first, so that the last programs to run are short.
    ``items`` is int32 ``[6, max_items]``: for each piece its sequence (-1: none), first token, token past the last,
    the sequence's first item, its number of pieces, and the row of its block table. ``partial`` ``[max_items, K, G,
    D]`` and ``lse`` ``[max_items, K, G]`` hold what the pieces of a sequence leave for the last of them to merge;
    ``arrived`` ``[batch, K]`` counts them, and is zero between steps.
    """

    order: Tensor
    items: Tensor
    partial: Tensor
    lse: Tensor
    arrived: Tensor
    programs: int
    fewest: int
    tile: int

    @classmethod
    def empty(cls, batch: int, kv_heads: int, group: int, size: int, device: torch.device) -> SplitPlan:
        """Room for ``batch`` sequences of a model with ``kv_heads`` heads of ``size``, ``group`` queries each."""
        programs, fewest = pieces(kv_heads, device)
        count = _room(batch, programs)
        whole = cls(
            order=torch.zeros(batch, dtype=torch.int32, device=device),
            items=torch.full((FIELDS, count), -1, dtype=torch.int32, device=device),
            partial=torch.empty(count, kv_heads, group, size, dtype=torch.float32, device=device),
            lse=torch.empty(count, kv_heads, group, dtype=torch.float32, device=device),
            arrived=torch.zeros(batch, kv_heads, dtype=torch.int32, device=device),
            programs=programs,
            fewest=fewest,
            tile=tile_keys(batch, size, device),
        )
        return whole.shrunk(batch)

    def shrunk(self, batch: int) -> SplitPlan:
        """The same memory as a plan for ``batch`` sequences: steps follow one another, so one room serves them all."""
        programs = self.fewest if batch <= ALONE else self.programs
        count = _room(batch, programs)
        return evolve(
            self,
            programs=programs,
            order=self.order[:batch],
            items=self.items.flatten()[: FIELDS * count].view(FIELDS, count),
            partial=self.partial[:count],
            lse=self.lse[:count],
            arrived=self.arrived[:batch],
            tile=tile_keys(batch, self.partial.shape[-1], self.items.device),
        )

    def fill(self, lengths: Tensor, rows: Tensor, window: int = 0) -> None:
        """Cut sequences of ``lengths [B]`` int32 tokens, their block tables at ``rows [B]`` int32.

        With ``window`` only its tokens count.
        """
        batch, count = len(lengths), self.items.shape[1]
        width = max(16, triton.next_power_of_2(batch))
        _rank[(triton.cdiv(batch, RANKED),)](self.order, lengths, batch, ROWS=RANKED, BATCH=width, num_warps=4)
        _fill[(count // ITEMS_PER_PROGRAM,)](
            self.items, self.order, lengths, rows, batch, count, self.programs, self.fewest, window,
            TILE=self.tile, ITEMS=ITEMS_PER_PROGRAM, BATCH=width, num_warps=4,
        )  # fmt: skip
        # A launch between: `decode_attention` reads the items before it waits for what was launched last.
        self.arrived.zero_()


def _room(batch: int, programs: int) -> int:
    """The most pieces that ``batch`` sequences can make: a program without one still takes its turn."""
    return triton.cdiv(batch - 1 + programs, ITEMS_PER_PROGRAM) * ITEMS_PER_PROGRAM


def pieces(kv_heads: int, device: torch.device) -> tuple[int, int]:
    """The most and the fewest pieces a step should have for each KV head.

    Two pieces a multiprocessor are the fewest that load the card; four of them keep it loaded evenly to the end.
    """
    if device.type != "cuda":
        return 4, 2
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    most, fewest = (max(1, share * multiprocessors // kv_heads) for share in (4, 2))
    return most - most % min(most, MERGED), fewest - fewest % min(fewest, MERGED)


def tile_keys(batch: int, size: int, device: torch.device) -> int:
    """Keys that a program reads at a time: few where several sequences share the card and each has only a few tiles."""
    if device.type != "cuda":
        return 16
    if ALONE < batch <= 16:
        return 32
    return 128 if 64 < size <= 128 or (batch <= ALONE and size <= 64) else 64


@triton.jit
def _rank(order, lengths, batch, ROWS: tl.constexpr, BATCH: tl.constexpr):
    """Write each sequence to the place in ``order`` that as many have before it as are longer."""
    mine, other = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, BATCH)
    length = tl.load(lengths + mine, mask=mine < batch, other=0)
    others = tl.load(lengths + other, mask=other < batch, other=-1)
    before = (others[None, :] > length[:, None]) | (
        (others[None, :] == length[:, None]) & (other[None, :] < mine[:, None])
    )
    tl.store(order + tl.sum(before.to(tl.int32), 1), mine, mask=mine < batch)


@triton.jit
def _fill(
    items, order, lengths, rows, batch, count, programs, fewest, window,
    TILE: tl.constexpr, ITEMS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    row = tl.arange(0, BATCH)
    length = tl.load(lengths + tl.load(order + row, mask=row < batch, other=0), mask=row < batch, other=0)
    start = tl.maximum(length - window, 0) if window > 0 else length * 0
    span = length - start
    # Pieces of eight tiles or so, unless that leaves multiprocessors idle, or makes more pieces than there is room for.
    wanted = tl.minimum(tl.maximum(tl.sum(span) // (8 * TILE), fewest), programs)
    chunk = tl.maximum(tl.cdiv(tl.cdiv(tl.sum(span), wanted), TILE), 1) * TILE
    splits = tl.where(row < batch, tl.maximum(tl.cdiv(span, chunk), 1), 0)
    last = tl.cumsum(splits)

    item = tl.program_id(0) * ITEMS + tl.arange(0, ITEMS)
    owner = tl.sum((last[None, :] <= item[:, None]).to(tl.int32), 1)
    mine = (owner[:, None] == row[None, :]).to(tl.int32)
    number = tl.sum(mine * splits[None, :], 1)
    first = tl.sum(mine * (last - splits)[None, :], 1)
    begin = tl.sum(mine * start[None, :], 1)
    end = tl.sum(mine * length[None, :], 1)
    step = tl.cdiv(tl.cdiv(end - begin, tl.maximum(number, 1)), TILE) * TILE
    piece = begin + (item - first) * step
    used = owner < batch
    sequence = tl.load(order + owner, mask=used, other=0)
    tl.store(items + item, tl.where(used, sequence, -1))
    tl.store(items + count + item, tl.minimum(piece, end), mask=used)
    tl.store(items + 2 * count + item, tl.minimum(piece + step, end), mask=used)
    tl.store(items + 3 * count + item, first, mask=used)
    tl.store(items + 4 * count + item, number, mask=used)
    tl.store(items + 5 * count + item, tl.load(rows + sequence, mask=used, other=0), mask=used)

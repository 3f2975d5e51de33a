"""How the prefill attention of a step is cut into tiles of queries: on the host, where the chunks are decided."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from attrs import frozen
from torch import Tensor

from velollm_cuda.transfer import to_device


@frozen
class TilePlan:
    """The tiles of one step: ``tiles`` int32 ``[n, 3]`` of (sequence, first query of the tile in its chunk, row of
    the sequence's block table); a sequence of -1 is padding.

    Those with most keys to read come first, so that the last to run are short. ``starts [B + 1]`` and ``lengths [B]``
    are int32, as `reference.prefill_attention` takes them.
    """

    tiles: Tensor
    starts: Tensor
    lengths: Tensor
    rows: int

    @classmethod
    def of(
        cls, chunks: Sequence[int], lengths: Sequence[int], tables: Sequence[int], group: int,
        kv_heads: int, size: int, device: torch.device,
    ) -> TilePlan:  # fmt: skip
        """Cut ``chunks[b]`` new tokens, the last of ``lengths[b]``, of the sequence whose blocks are in ``tables[b]``.

        ``group`` queries a KV head share a tile of head ``size``.
        """
        rows = tile_rows(sum(chunks) * kv_heads, group, size, device)
        flat = cut(chunks, lengths, tables, rows // group)
        starts = list(accumulate(chunks, initial=0))
        packed = to_device([*starts, *lengths, *flat], torch.int32, device)
        parts = packed.split([len(starts), len(lengths), len(flat)])
        return cls(parts[2].view(-1, 3), parts[0], parts[1], rows)


def cut(chunks: Sequence[int], lengths: Sequence[int], tables: Sequence[int], step: int) -> list[int]:
    """The tiles of a `TilePlan` with ``step`` queries each, one after another."""
    found = [
        (length - chunk + min(first + step, chunk), row, first, table)
        for row, (chunk, length, table) in enumerate(zip(chunks, lengths, tables, strict=True))
        for first in range(0, chunk, step)
    ]
    found.sort(reverse=True)
    return [number for each in found for number in each[1:]]


def tile_rows(queries: int, group: int, size: int, device: torch.device) -> int:
    """Rows of one tile, queries times heads of a group, for ``queries`` (over all KV heads) in the step.

    Tall tiles read K and V fewer times; short ones load every multiprocessor where there is little to do.
    """
    if device.type != "cuda":
        return max(16, _power_of_2(group))
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    tall = 64 < size <= 128 and 2 * queries * group >= 3 * 256 * multiprocessors
    return max(256 if tall else 64, _power_of_2(group))


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()

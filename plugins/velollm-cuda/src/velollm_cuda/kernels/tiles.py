"""How the prefill attention of a step is cut into tiles of queries: on the host, where the chunks are decided."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from attrs import frozen
from torch import Tensor


@frozen
class TilePlan:
    """The tiles of one step: ``tiles`` int32 ``[n, 3]`` of (sequence, first query of the tile in its chunk, row of
    the sequence's block table).

    Those with most keys to read come first, so that the last to run are short. ``starts [B + 1]`` and ``lengths [B]``
    are int32, as `reference.prefill_attention` takes them.
    """

    tiles: Tensor
    starts: Tensor
    lengths: Tensor
    rows: int

    @classmethod
    def of(
        cls, chunks: Sequence[int], lengths: Sequence[int], tables: Sequence[int], group: int, size: int,
        device: torch.device,
    ) -> TilePlan:  # fmt: skip
        """Cut ``chunks[b]`` new tokens, the last of ``lengths[b]``, of the sequence whose blocks are in ``tables[b]``.

        ``group`` queries a KV head share a tile of head ``size``.
        """
        rows = tile_rows(group, size, device)
        step = rows // group
        found = [
            (length - chunk + min(first + step, chunk), row, first, table)
            for row, (chunk, length, table) in enumerate(zip(chunks, lengths, tables, strict=True))
            for first in range(0, chunk, step)
        ]
        found.sort(reverse=True)
        starts = [0]
        for chunk in chunks:
            starts.append(starts[-1] + chunk)
        tiles = torch.tensor([each[1:] for each in found], dtype=torch.int32).reshape(-1, 3)
        ints = torch.tensor([*starts, *lengths], dtype=torch.int32).to(device, non_blocking=True)
        return cls(tiles.to(device, non_blocking=True), ints[: len(starts)], ints[len(starts) :], rows)


def tile_rows(group: int, size: int, device: torch.device) -> int:
    """Rows of one tile: queries times heads of a group. A multiple of what the matrix unit takes at a time."""
    if device.type != "cuda":
        return max(16, _power_of_2(group))
    return max(64 if size > 128 else 128, _power_of_2(group))


def _power_of_2(count: int) -> int:
    return 1 << (count - 1).bit_length()

"""The slot table: what the device knows of every live sequence, kept up to date by differences."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.output import TableUpdate
from velollm_core.engine.sequence import Sequence
from velollm_cuda.transfer import to_device


@define(eq=False)
class SlotTable:
    """A row for each live sequence; the last row, ``nobody``, serves padding.

    On the device: ``last_tokens`` ``[S + 1]`` int64, ``lengths`` ``[S + 1]`` int32 (tokens in the cache),
    ``temperature``, ``top_p`` and ``min_p`` ``[S + 1]`` fp32, ``top_k`` and ``seeds`` ``[S + 1]`` int64, and a block
    table ``[S + 1, max_blocks]`` int32 for each KV group.
    """

    max_num_seqs: int
    device: torch.device
    layout: KVCacheLayout
    max_model_len: int
    last_tokens: Tensor = field(init=False)
    lengths: Tensor = field(init=False)
    temperature: Tensor = field(init=False)
    top_p: Tensor = field(init=False)
    min_p: Tensor = field(init=False)
    top_k: Tensor = field(init=False)
    seeds: Tensor = field(init=False)
    tables: tuple[Tensor, ...] = field(init=False)
    _rows: dict[Sequence, int] = field(init=False, factory=dict)
    _free: list[int] = field(init=False)
    _restricted: set[int] = field(init=False, factory=set)

    def __attrs_post_init__(self) -> None:
        count = self.max_num_seqs + 1
        self.last_tokens = torch.zeros(count, dtype=torch.int64, device=self.device)
        self.lengths = torch.zeros(count, dtype=torch.int32, device=self.device)
        self.temperature = torch.zeros(count, device=self.device)
        self.top_p = torch.ones(count, device=self.device)
        self.min_p = torch.zeros(count, device=self.device)
        self.top_k = torch.zeros(count, dtype=torch.int64, device=self.device)
        self.seeds = torch.zeros(count, dtype=torch.int64, device=self.device)
        blocks = -(-self.max_model_len // self.layout.block_size) + 1
        self.tables = tuple(
            torch.zeros(count, blocks, dtype=torch.int32, device=self.device) for _ in self.layout.groups
        )
        self._free = list(range(self.max_num_seqs - 1, -1, -1))

    @property
    def nobody(self) -> int:
        """The row that padding points at."""
        return self.max_num_seqs

    @property
    def restricted(self) -> bool:
        """Whether a live sequence asks for top-k, top-p or min-p."""
        return bool(self._restricted)

    def row(self, sequence: Sequence) -> int:
        """The row of a live sequence."""
        return self._rows[sequence]

    def enter(self, sequences: Iterable[Sequence]) -> None:
        """Give rows to those of ``sequences`` that have none, with the parameters they sample by."""
        fresh = [sequence for sequence in dict.fromkeys(sequences) if sequence not in self._rows]
        if not fresh:
            return
        for sequence in fresh:
            self._rows[sequence] = self._free.pop()
        rows = [self._rows[sequence] for sequence in fresh]
        params = [sequence.sampling for sequence in fresh]
        self._restricted.update(
            row for row, each in zip(rows, params, strict=True) if each.top_k or each.top_p < 1 or each.min_p
        )
        reals = [value for each in params for value in (each.temperature, each.top_p, each.min_p)]
        seeds = [_seed(sequence) for sequence in fresh]
        counts = to_device([*rows, *(each.top_k for each in params), *seeds], torch.int64, self.device)
        where, top_k, seed = counts.view(3, -1)
        temperature, top_p, min_p = to_device(reals, torch.float32, self.device).view(-1, 3).unbind(1)
        self.temperature[where], self.top_p[where], self.min_p[where] = temperature, top_p, min_p
        self.top_k[where], self.seeds[where] = top_k, seed

    def leave(self, sequences: Iterable[Sequence]) -> None:
        """Forget sequences; their rows may be given away from the next `enter` on."""
        for sequence in sequences:
            row = self._rows.pop(sequence, None)
            if row is not None:
                self._free.append(row)
                self._restricted.discard(row)

    def set_blocks(self, updates: Iterable[TableUpdate]) -> None:
        """Write block ids into the tables: one transfer and one scatter a KV group."""
        cells: list[list[int]] = [[] for _ in self.tables]
        for update in updates:
            row = self._rows[update.sequence]
            for index, block in enumerate(update.blocks, update.start):
                cells[update.group] += (row, index, block)
        for table, flat in zip(self.tables, cells, strict=True):
            if flat:
                where = to_device(flat, torch.int64, self.device).view(-1, 3)
                table[where[:, 0], where[:, 1]] = where[:, 2].int()


def _seed(sequence: Sequence) -> int:
    """The request's own seed, else one of its id: `hash` would differ from run to run."""
    if sequence.sampling.seed is not None:
        return sequence.sampling.seed % 2**31
    return int.from_bytes(sequence.id.encode()[-7:], "little") % 2**31

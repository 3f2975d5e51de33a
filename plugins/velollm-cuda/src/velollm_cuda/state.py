"""The slot table: what the device knows of every live sequence, kept up to date by differences."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import or_

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.backends.request import MOST_RANKED, SamplingParams
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.output import TableUpdate
from velollm_core.engine.sequence import Sequence
from velollm_cuda.asks import NOTHING, Asks
from velollm_cuda.tally import Tally
from velollm_cuda.transfer import to_device

MAX_STOP_IDS = 32
# Colder than this there is nothing left to draw, and a logit divided by it may be infinite.
COLDEST = 1e-5


@define(eq=False)
class SlotTable:
    """A row for each live sequence; the last row, ``nobody``, serves padding.

    There are ``depth`` times as many rows as sequences that run, S: one that has ended keeps its row while a step of
    its is in flight, and another has its place already.

    On the device: ``last_tokens`` ``[S + 1]`` int64, ``lengths`` ``[S + 1]`` int32 (tokens in the cache),
    ``temperature``, ``top_p`` and ``min_p`` ``[S + 1]`` fp32, ``penalties`` ``[3, S + 1]`` fp32 (repetition,
    frequency, presence), ``top_k``, ``seeds`` and ``first_stop`` ``[S + 1]`` int64 (the first position behind which
    the sequence may end), its ``stop_ids`` ``[S + 1, 32]`` int64, the last tokens' ``logprobs`` ``[S + 1]`` fp32, the
    likeliest tokens in their places, ``ranked_ids`` int64 and ``ranked_logprobs`` fp32 ``[S + 1, 20]``, and
    a block table ``[S + 1, max_blocks]`` int32 for each KV group.
    """

    max_num_seqs: int
    device: torch.device
    layout: KVCacheLayout
    max_model_len: int
    vocabulary: int
    depth: int = 2
    last_tokens: Tensor = field(init=False)
    lengths: Tensor = field(init=False)
    stop_ids: Tensor = field(init=False)
    logprobs: Tensor = field(init=False)
    ranked_ids: Tensor = field(init=False)
    ranked_logprobs: Tensor = field(init=False)
    tally: Tally = field(init=False)
    tables: tuple[Tensor, ...] = field(init=False)
    asks: Asks = field(init=False, default=NOTHING)
    _reals: Tensor = field(init=False)
    _counts: Tensor = field(init=False)
    _rows: dict[Sequence, int] = field(init=False, factory=dict)
    _free: list[int] = field(init=False)
    _asking: dict[int, Asks] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        count, device = self.nobody + 1, self.device
        self.last_tokens = torch.zeros(count, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(count, dtype=torch.int32, device=device)
        self.stop_ids = torch.zeros(count, MAX_STOP_IDS, dtype=torch.int64, device=device)
        self.logprobs = torch.zeros(count, device=device)
        ranked = (count, min(MOST_RANKED, self.vocabulary))
        self.ranked_ids = torch.zeros(ranked, dtype=torch.int64, device=device)
        self.ranked_logprobs = torch.zeros(ranked, device=device)
        self.tally = Tally(count, self.vocabulary, device)
        self._reals = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0], device=device)[:, None].repeat(1, count)
        self._counts = torch.zeros(3, count, dtype=torch.int64, device=device)
        blocks = -(-self.max_model_len // self.layout.block_size) + 1
        self.tables = tuple(torch.zeros(count, blocks, dtype=torch.int32, device=device) for _ in self.layout.groups)
        self._free = list(range(self.nobody - 1, -1, -1))

    @property
    def nobody(self) -> int:
        """The row that padding points at."""
        return self.depth * self.max_num_seqs

    @property
    def temperature(self) -> Tensor:
        """0 is greedy."""
        return self._reals[0]

    @property
    def top_p(self) -> Tensor:
        """1 restricts nothing."""
        return self._reals[1]

    @property
    def min_p(self) -> Tensor:
        """0 restricts nothing."""
        return self._reals[2]

    @property
    def penalties(self) -> Tensor:
        """Repetition, frequency and presence."""
        return self._reals[3:]

    @property
    def top_k(self) -> Tensor:
        """0 restricts nothing."""
        return self._counts[0]

    @property
    def seeds(self) -> Tensor:
        """Where each row's draws begin."""
        return self._counts[1]

    @property
    def first_stop(self) -> Tensor:
        """The first position behind which an end may come."""
        return self._counts[2]

    def row(self, sequence: Sequence) -> int:
        """The row of a live sequence."""
        return self._rows[sequence]

    def enter(self, sequences: Iterable[Sequence]) -> None:
        """Give rows to those of ``sequences`` that have none, with the parameters they sample by."""
        fresh = [sequence for sequence in dict.fromkeys(sequences) if sequence not in self._rows]
        if not fresh:
            return
        rows = [self._free.pop() for _ in fresh]
        self._rows.update(zip(fresh, rows, strict=True))
        reals = [value for sequence in fresh for value in _reals(sequence.sampling)]
        counts = [
            value for row, sequence in zip(rows, fresh, strict=True) for value in (row, *self._counts_of(sequence))
        ]
        packed = to_device(counts, torch.int64, self.device).view(len(fresh), -1).T
        self._counts[:, packed[0]] = packed[1:]
        self._reals[:, packed[0]] = to_device(reals, torch.float32, self.device).view(len(fresh), -1).T
        for row, sequence in zip(rows, fresh, strict=True):
            self._listen(row, sequence)

    def leave(self, sequences: Iterable[Sequence]) -> None:
        """Forget sequences; their rows may be given away from the next `enter` on."""
        for sequence in sequences:
            row = self._rows.pop(sequence, None)
            if row is None:
                continue
            self._free.append(row)
            if self._asking.pop(row, None):
                self.asks = reduce(or_, self._asking.values(), NOTHING)

    def _listen(self, row: int, sequence: Sequence) -> None:
        """Take in what ``sequence`` asks beyond a temperature; most ask nothing."""
        late = self._late_ids(sequence)
        asks = Asks.of(sequence.sampling, delayed=bool(late))
        if asks == NOTHING:
            return
        self._asking[row] = asks
        self.asks |= asks
        if asks.penalized:
            self.tally.enter(row, sequence)
        if asks.delayed:
            late += late[:1] * (MAX_STOP_IDS - len(late))
            self.stop_ids[row] = to_device(late, torch.int64, self.device)

    def _late_ids(self, sequence: Sequence) -> list[int]:
        """The tokens that may not end ``sequence`` yet; one that the model does not have ends nothing."""
        if sequence.sampling.min_tokens < 1:
            return []
        return [each for each in sorted(sequence.stop_ids) if each < self.vocabulary][:MAX_STOP_IDS]

    def _counts_of(self, sequence: Sequence) -> tuple[int, int, int]:
        """Top-k, the seed, and the position behind which the token after ``min_tokens`` others comes."""
        params = sequence.sampling
        first_stop = sequence.num_prompt_tokens + params.min_tokens - 1 if self._late_ids(sequence) else 0
        return params.top_k, _seed(sequence), first_stop

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


def _reals(params: SamplingParams) -> tuple[float, ...]:
    penalties = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
    heat = params.temperature if params.temperature >= COLDEST else 0.0
    return (heat, params.top_p, params.min_p, *penalties)


def _seed(sequence: Sequence) -> int:
    """The request's own seed, else one of its id: `hash` would differ from run to run."""
    if sequence.sampling.seed is not None:
        return sequence.sampling.seed % 2**31
    return int.from_bytes(sequence.id.encode()[-7:], "little") % 2**31

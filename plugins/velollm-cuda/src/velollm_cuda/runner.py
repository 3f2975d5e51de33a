"""One planned step becomes one launch: a graph replay where only decodes run, eager kernels where prompts do too."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.engine.output import ScheduledChunk, SchedulerOutput
from velollm_cuda.asks import NOTHING, Asks
from velollm_cuda.batch import Batch, Chunks, Decodes
from velollm_cuda.graphs import GraphLadder
from velollm_cuda.kernels.tiles import TilePlan
from velollm_cuda.models.transformer import KVCache, Transformer
from velollm_cuda.sampler import sample
from velollm_cuda.state import SlotTable
from velollm_cuda.transfer import to_device

if TYPE_CHECKING:
    from velollm_cuda.kernels.split import SplitPlan

PADDING = 32


@define(eq=False)
class ModelRunner:
    """Carries out steps on one device, in the order they are given.

    ``cache`` holds a key and a value tensor for each layer; with ``eager`` no graph is captured.
    """

    model: Transformer
    cache: KVCache
    state: SlotTable
    eager: bool = False
    _ladder: GraphLadder = field(init=False)
    _plans: tuple[SplitPlan, ...] = field(init=False, default=())

    def __attrs_post_init__(self) -> None:
        self._ladder = GraphLadder(self.state.nobody, self.state.device)

    @torch.inference_mode()
    def run(self, output: SchedulerOutput) -> Tensor:
        """The step's sampled tokens on the device: its decodes, then the chunks that sample."""
        state = self.state
        state.leave(output.released)
        state.enter(chunk.sequence for chunk in output.chunks)
        state.set_blocks(output.table_updates)
        self._copy_blocks(output)
        rows = [state.row(sequence) for sequence in output.decodes]
        if output.chunks:
            return self._mixed(rows, output.chunks)
        if self.eager or state.device.type != "cuda":
            return self._decode(to_device(rows, torch.int32, state.device), state.asks)
        asks = state.asks
        return self._ladder.replay(rows, lambda static: self._decode(static, asks), variant=asks)

    @torch.inference_mode()
    def warm_up(self) -> None:
        """Capture the graphs of all batch sizes: for servers, whose clients would otherwise wait for each first one."""
        if not self.eager and self.state.device.type == "cuda":
            self._ladder.warm(self.state.max_num_seqs, lambda static: self._decode(static, NOTHING), NOTHING)

    def _decode(self, rows: Tensor, asks: Asks) -> Tensor:
        """One token of each of ``rows [B]`` int32, all state read and advanced on the device."""
        state, kernels = self.state, self.model.kernels
        tokens, positions, grown, slots = self._begin(rows)
        batch = Batch(tokens, positions, slots, state.tables, self._decodes(rows, grown))
        logits = self.model.logits(self.model.forward(batch, self.cache))
        chosen = sample(kernels, logits, state, rows.long(), positions, asks)
        kernels.end_decode(rows, state.last_tokens, state.lengths, chosen, grown)
        return chosen

    def _mixed(self, rows: list[int], chunks: tuple[ScheduledChunk, ...]) -> Tensor:
        state, model = self.state, self.model
        step = _MixedStep.of(rows, chunks, state)
        tokens, positions, grown, slots = self._begin(step.rows)
        held = [table[step.token_rows, step.positions // self.block_size].long() for table in state.tables]
        offset = step.positions % self.block_size
        config = model.config
        plan = TilePlan.of(
            step.counts, step.lengths, step.chunk_rows, config.group, config.kv_heads, config.head_size, state.device
        )  # fmt: skip
        batch = Batch(
            torch.cat([tokens, step.tokens]),
            torch.cat([positions, step.positions]),
            tuple(
                torch.cat([mine, blocks * self.block_size + offset]) for mine, blocks in zip(slots, held, strict=True)
            ),
            state.tables,
            self._decodes(step.rows, grown) if rows else None,
            Chunks(step.chunk_rows_device, plan),
        )
        hidden = model.forward(batch, self.cache)
        model.kernels.end_decode(step.rows, state.last_tokens, state.lengths, tokens, grown)
        state.lengths[step.chunk_rows_device] = plan.lengths
        if not len(step.sampled):
            return tokens[:0]
        logits = model.logits(hidden[step.sampled])
        positions = batch.positions[step.sampled]
        chosen = sample(model.kernels, logits, state, step.sampled_rows, positions, state.asks)
        state.last_tokens[step.sampled_rows] = chosen
        return chosen

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return self.state.layout.block_size

    def _begin(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
        """Tokens, positions, lengths with the token, and slots for each KV group, of the decodes at ``rows``."""
        state, kernels = self.state, self.model.kernels
        tokens = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        positions, grown = torch.empty_like(tokens), torch.empty_like(rows)
        slots = tuple(torch.empty_like(tokens) for _ in state.tables)
        if len(rows):
            kernels.begin_decode(rows, state.last_tokens, state.lengths, tokens, positions, grown)
            for table, mine in zip(state.tables, slots, strict=True):
                kernels.next_slots(rows, state.lengths, table, self.block_size, mine)
        return tokens, positions, grown, slots

    def _decodes(self, rows: Tensor, lengths: Tensor) -> Decodes:
        if rows.device.type != "cuda":
            return Decodes(rows, lengths, None)
        from velollm_cuda.kernels.split import SplitPlan

        config = self.model.config
        if not self._plans:
            shape = (self.state.max_num_seqs + PADDING, config.kv_heads, config.group, config.head_size)
            self._plans = tuple(SplitPlan.empty(*shape, rows.device) for _ in config.kv_windows)
        plans = tuple(plan.shrunk(len(rows)) for plan in self._plans)
        for plan, window in zip(plans, config.kv_windows, strict=True):
            plan.fill(lengths, rows, window)
        return Decodes(rows, lengths, plans)

    def _copy_blocks(self, output: SchedulerOutput) -> None:
        """Copy-on-write: whole blocks of every layer of the group, then the table entry."""
        groups = self.model.config.group_of_layer
        for copy in output.copies:
            for layer, (key, value) in enumerate(self.cache):
                if groups[layer] == copy.group:
                    key[copy.target], value[copy.target] = key[copy.source], value[copy.source]
            self.state.tables[copy.group][self.state.row(copy.sequence), copy.index] = copy.target


@define(eq=False)
class _MixedStep:
    """What the host knows of a mixed step, on the device in one transfer."""

    rows: Tensor
    tokens: Tensor
    positions: Tensor
    token_rows: Tensor
    chunk_rows_device: Tensor
    sampled: Tensor
    sampled_rows: Tensor
    counts: list[int]
    lengths: list[int]
    chunk_rows: list[int]

    @classmethod
    def of(cls, rows: list[int], chunks: tuple[ScheduledChunk, ...], state: SlotTable) -> _MixedStep:
        """Lay out the decodes at ``rows``, then ``chunks``."""
        counts = [len(chunk.token_ids) for chunk in chunks]
        chunk_rows = [state.row(chunk.sequence) for chunk in chunks]
        sampled, at = list(range(len(rows))), len(rows)
        for chunk, count in zip(chunks, counts, strict=True):
            at += count
            sampled += [at - 1] * chunk.samples
        sampled_rows = rows + [row for row, chunk in zip(chunk_rows, chunks, strict=True) if chunk.samples]
        parts = [
            rows,
            list(chain.from_iterable(chunk.token_ids for chunk in chunks)),
            list(
                chain.from_iterable(
                    range(chunk.start, chunk.start + n) for chunk, n in zip(chunks, counts, strict=True)
                )
            ),
            list(chain.from_iterable([row] * n for row, n in zip(chunk_rows, counts, strict=True))),
            chunk_rows,
            sampled,
            sampled_rows,
        ]
        flat = to_device(list(chain.from_iterable(parts)), torch.int64, state.device)
        packed = flat.split([len(part) for part in parts])
        lengths = [chunk.start + count for chunk, count in zip(chunks, counts, strict=True)]
        return cls(
            packed[0].int(), packed[1], packed[2], packed[3], packed[4], packed[5], packed[6], counts, lengths,
            chunk_rows,
        )  # fmt: skip

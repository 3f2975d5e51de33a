"""One planned step becomes one launch: a graph replay, or eager kernels where a step is too large or too rare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from typing import TYPE_CHECKING

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.engine.output import ScheduledChunk, SchedulerOutput
from velollm_cuda.asks import NOTHING, Asks
from velollm_cuda.batch import Batch, Chunks, Decodes
from velollm_cuda.graphs import Body, GraphPool, rung, rungs
from velollm_cuda.mixed import DECODES, TOKENS, MixedShape, MixedStep, numbers
from velollm_cuda.models.transformer import KVCache, Transformer
from velollm_cuda.products import Products
from velollm_cuda.sampler import sample
from velollm_cuda.state import SlotTable
from velollm_cuda.transfer import to_device

if TYPE_CHECKING:
    from velollm_cuda.kernels.split import SplitPlan

# To capture a graph takes about as long as the host takes longer for so many steps without one.
RARE = 8


@define(eq=False)
class ModelRunner:
    """Carries out steps on one device, in the order they are given.

    ``cache`` holds a key and a value tensor for each layer; with ``eager`` no graph is captured.
    """

    model: Transformer
    cache: KVCache
    state: SlotTable
    eager: bool = False
    _graphs: GraphPool = field(init=False)
    _seen: Counter[Hashable] = field(init=False, factory=Counter)
    _plans: tuple[SplitPlan, ...] = field(init=False, default=())
    _products: Products | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.eager = self.eager or self.state.device.type != "cuda"
        self._graphs = GraphPool(self.state.device)

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
            return self._run_mixed(rows, output.chunks)
        if self.eager:
            return self._decode(to_device(rows, torch.int64, state.device), state.asks)
        key = rung(len(rows)), state.asks
        if key not in self._graphs:
            self._capture_decode(*key)
        return self._graphs.replay(key, rows + [state.nobody] * (key[0] - len(rows)))[: len(rows)]

    @torch.inference_mode()
    def warm_up(self, most_tokens: int, usual: Asks = NOTHING) -> None:
        """Capture the graphs of steps of up to ``most_tokens``: for servers, whose clients would otherwise wait for
        each first one. Steps in which somebody asks for more than ``usual`` have graphs of their own, later.
        """
        if self.eager:
            return
        for asks in dict.fromkeys((usual, NOTHING)):
            for size in rungs(self.state.max_num_seqs):
                self._capture_decode(size, asks)
            for shape in self._shapes(most_tokens):
                self._capture_mixed(shape, asks)

    def _shapes(self, most_tokens: int) -> list[MixedShape]:
        """Those of the ladder for steps of up to ``most_tokens``, the largest first."""
        shapes = {
            self._roomy(min(decodes, self.state.max_num_seqs), min(tokens, most_tokens), 1)
            for decodes in DECODES
            for tokens in TOKENS
        }
        return sorted(filter(None, shapes), key=lambda shape: (shape.tokens, shape.decodes), reverse=True)

    def _run_mixed(self, rows: list[int], chunks: tuple[ScheduledChunk, ...]) -> Tensor:
        state, config, asks = self.state, self.model.config, self.state.asks
        count = len(rows) + sum(chunk.samples > 0 for chunk in chunks)
        shape = None if self.eager else self._roomy(len(rows), sum(len(each.token_ids) for each in chunks), len(chunks))
        if shape and self._is_worth_a_graph(shape, asks):
            values, _ = numbers(rows, chunks, state, config, shape)
            return self._graphs.replay((shape, asks), values)[:count]
        values, own = numbers(rows, chunks, state, config, None)
        return self._mixed(to_device(values, torch.int64, state.device), own, asks)

    def _is_worth_a_graph(self, shape: MixedShape, asks: Asks) -> bool:
        """A shape has one once it is no longer rare."""
        key = shape, asks
        if key in self._graphs:
            return True
        self._seen[key] += 1
        if self._seen[key] <= RARE:
            return False
        self._capture_mixed(shape, asks)
        return True

    def _capture_decode(self, size: int, asks: Asks) -> None:
        self._capture((size, asks), [self.state.nobody] * size, lambda static: self._decode(static, asks))

    def _capture_mixed(self, shape: MixedShape, asks: Asks) -> None:
        idle, _ = numbers([], [], self.state, self.model.config, shape)
        self._capture((shape, asks), idle, lambda static: self._mixed(static, shape, asks))

    def _capture(self, key: Hashable, idle: list[int], body: Body) -> None:
        """A graph multiplies by what has proved the faster library for its sizes."""
        model = self.model
        if self._products is None:
            self._products = Products.measured(model.kernels.linear, model.matrices)
        model.linear = self._products.linear
        try:
            self._graphs.capture(key, idle, body)
        finally:
            model.linear = model.kernels.linear

    def _roomy(self, decodes: int, tokens: int, chunks: int) -> MixedShape | None:
        return MixedShape.roomy(decodes, tokens, chunks, self.model.config, self.state.device)

    def _decode(self, flat: Tensor, asks: Asks) -> Tensor:
        """One token of each of the rows ``flat [B]`` int64, all state read and advanced on the device."""
        state, kernels, rows = self.state, self.model.kernels, flat.int()
        tokens, positions, grown, slots = self._begin(rows)
        batch = Batch(tokens, positions, slots, state.tables, self._decodes(rows, grown))
        logits = self.model.logits(self.model.forward(batch, self.cache))
        chosen = sample(kernels, logits, state, flat, positions, asks)
        kernels.end_decode(rows, state.last_tokens, state.lengths, chosen, grown)
        return chosen

    def _mixed(self, flat: Tensor, shape: MixedShape, asks: Asks) -> Tensor:
        """One token of each row that samples, decodes first, out of the `numbers` of a step."""
        state, model = self.state, self.model
        step = MixedStep.of(flat, shape)
        tokens, positions, grown, slots = self._begin(step.rows)
        batch = Batch(
            torch.cat([tokens, step.tokens]),
            torch.cat([positions, step.positions]),
            tuple(
                torch.cat([mine, step.slots(table, self.block_size)])
                for mine, table in zip(slots, state.tables, strict=True)
            ),
            state.tables,
            self._decodes(step.rows, grown) if shape.decodes else None,
            Chunks(step.chunk_rows, step.tiles),
        )
        hidden = model.forward(batch, self.cache)
        model.kernels.end_decode(step.rows, state.last_tokens, state.lengths, tokens, grown)
        state.lengths[step.chunk_rows] = step.tiles.lengths
        if not shape.sampled:
            return tokens[:0]
        logits = model.logits(hidden[step.sampled])
        positions = batch.positions[step.sampled]
        chosen = sample(model.kernels, logits, state, step.sampled_rows, positions, asks)
        state.last_tokens[step.sampled_rows] = chosen
        return chosen

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return self.state.layout.block_size

    @property
    def _most_decodes(self) -> int:
        """Those that any graph has room for."""
        most = self.state.max_num_seqs
        return max(rung(most), next((size for size in DECODES if size >= most), 0))

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
            shape = (self._most_decodes, config.kv_heads, config.group, config.head_size)
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

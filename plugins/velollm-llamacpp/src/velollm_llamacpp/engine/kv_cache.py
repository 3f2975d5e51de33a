"""Our block tables, carried out on llama.cpp's cache through its sequence ids."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from velollm_core.engine.output import BlockCopy, SchedulerOutput, Swap, TableUpdate
from velollm_core.engine.sequence import Sequence
from velollm_llamacpp.engine.lanes import Lanes
from velollm_llamacpp.engine.messages import END, Discard, Operation, Recompute, Remove, Restore, Save, Share


@define(eq=False)
class _Live:
    """A sequence with a sequence id: its block table, and how many of its tokens are in cells."""

    id: int
    table: list[int] = field(factory=list)
    length: int = 0


@define(eq=False)
class _Block:
    """Where a block's tokens are: its place in block tables, and the sequence ids that hold its cells."""

    place: int
    owners: set[int]


class PagedKvCache:
    """Turns a step's table updates, copies, swaps and releases into operations on sequence ids.

    What it promises: a sequence's tokens are in cells, computed by itself or shared with whoever computed them; two
    tables that name one block share its cells; a block handed out again takes no cells of its former content along.
    So llama.cpp never uses more cells than our used and cached blocks have places, and a step that the block manager
    allows finds cells.

    What it cannot promise: where the cells lie. llama.cpp places tokens one by one wherever it finds room, and its
    attention looks at everything up to the highest cell in use, so cached blocks cost time as well as room. A block
    is an account of 16 cells, not a place. Blocks that no sequence uses are kept under spare ids (`Lanes`); where those
    do not suffice, the cells are dropped, and computed again should the block manager still count on them.
    """

    def __init__(self, block_size: int, num_live: int, num_lanes: int) -> None:
        """Sequence ids below ``num_live`` are for live sequences, the next ``num_lanes`` for kept blocks.

        A sequence that is preempted by the step it is in lives until the next, beside whoever takes its place: so
        twice the scheduler's ``max_num_seqs`` are enough.
        """
        self._block_size = block_size
        self._free = list(range(num_live - 1, -1, -1))
        self._lanes = Lanes(range(num_live, num_live + num_lanes))
        self._live: dict[Sequence, _Live] = {}
        self._saved: set[Sequence] = set()
        self._blocks: dict[int, _Block] = {}
        self._operations: list[Operation] = []
        self._late: list[Operation] = []
        self._behind: set[int] = set()

    def prepare(self, output: SchedulerOutput) -> tuple[Operation, ...]:
        """The operations that must come before the step's tokens."""
        self._operations, self._late, self._behind = [], [], set()
        for sequence in output.released:
            self._release(sequence)
        for swap in output.swaps_out:
            self._swap_out(swap)
        starts = {chunk.sequence: chunk.start for chunk in output.chunks}
        starts.update({swap.sequence: 0 for swap in output.swaps_in})
        for update in output.table_updates:
            self._update(update, starts)
        for copy in output.copies:
            self._copy(copy)
        for swap in output.swaps_in:
            self._swap_in(swap)
        # What takes new cells comes after all that gives cells back.
        return (*self._operations, *self._late)

    def id_of(self, sequence: Sequence, start: int) -> int:
        """The sequence id for tokens of ``sequence`` from ``start`` on.

        Raises:
            ValueError: it holds fewer tokens than that.
        """
        live = self._live[sequence]
        if start != live.length:
            raise ValueError(f"{sequence.id} holds {live.length} tokens and was to go on at {start}")
        return live.id

    def grow(self, sequence: Sequence, length: int) -> None:
        """The first ``length`` tokens of ``sequence`` are in cells once the step is done."""
        self._live[sequence].length = length

    def give_up_kept(self) -> tuple[Operation, ...]:
        """Let go of all blocks that no sequence uses."""
        operations = []
        for lane, blocks in self._lanes.clear().items():
            self._disown(lane, blocks)
            operations.append(Remove(lane))
        return tuple(operations)

    def _release(self, sequence: Sequence) -> None:
        if sequence in self._saved:
            self._saved.remove(sequence)
            self._operations.append(Discard(sequence.id))
        live = self._live.pop(sequence, None)
        if live is None:
            return
        kept = {}
        for place, block in enumerate(live.table):
            held = self._blocks[block]
            held.owners.discard(live.id)
            if not held.owners and (place + 1) * self._block_size <= live.length:
                kept[place] = block
        if kept:
            self._keep(live.id, kept)
        self._operations.append(Remove(live.id))
        self._free.append(live.id)

    def _keep(self, source: int, kept: Mapping[int, int]) -> None:
        lane, lost = self._lanes.room_for(kept)
        if lane is None:
            return
        if lost:
            self._disown(lane, lost)
            self._operations.append(Remove(lane))
        for place, block in kept.items():
            self._blocks[block].owners.add(lane)
            self._share(source, lane, place, (place + 1) * self._block_size)

    def _swap_out(self, swap: Swap) -> None:
        live = self._live[swap.sequence]
        self._operations.append(Save(live.id, swap.sequence.id))
        self._release(swap.sequence)
        self._saved.add(swap.sequence)

    def _swap_in(self, swap: Swap) -> None:
        sequence = swap.sequence
        live = self._live[sequence]
        self._saved.discard(sequence)
        self._late.append(Restore(live.id, sequence.id, tuple(sequence.token_ids[: swap.num_tokens])))
        self._behind.add(live.id)
        live.length = swap.num_tokens

    def _update(self, update: TableUpdate, starts: Mapping[Sequence, int]) -> None:
        sequence = update.sequence
        live = self._live.get(sequence)
        shared = 0
        if live is None:
            live = self._live[sequence] = _Live(self._free.pop())
            live.length = shared = starts.get(sequence, sequence.num_computed)
        taken = -(-shared // self._block_size) if not update.start else 0
        del live.table[update.start :]
        live.table += update.blocks
        if taken:
            self._take_over(sequence, live, taken)
        for place in range(max(taken, update.start), len(live.table)):
            self._begin(live.table[place], place, live.id)

    def _take_over(self, sequence: Sequence, live: _Live, count: int) -> None:
        """Let ``live`` hold the cells of the first ``count`` blocks of its table: shared, or computed where lost."""
        source = -1
        for place in range(count):
            held = self._blocks.get(live.table[place])
            end = min((place + 1) * self._block_size, live.length)
            if held is None or not held.owners:
                self._compute(sequence, live, place, end)
                continue
            if source not in held.owners:
                source = min(held.owners)
            held.owners.add(live.id)
            self._share(source, live.id, place, end)
            if source in self._lanes:
                self._lanes.use(source)

    def _compute(self, sequence: Sequence, live: _Live, place: int, end: int) -> None:
        start = place * self._block_size
        last = self._late[-1] if self._late else None
        if isinstance(last, Recompute) and last.sequence == live.id:
            start = last.start
            self._late.pop()
        self._late.append(Recompute(live.id, start, tuple(sequence.token_ids[start:end])))
        self._behind.add(live.id)
        self._begin(live.table[place], place, live.id)

    def _copy(self, copy: BlockCopy) -> None:
        """Cells are shared one by one: ``sequence`` has those of the source already, and adds its own behind them."""
        live = self._live[copy.sequence]
        live.table[copy.index] = copy.target
        if copy.source in self._blocks:
            self._blocks[copy.source].owners.discard(live.id)
        self._begin(copy.target, copy.index, live.id)

    def _begin(self, block: int, place: int, owner: int) -> None:
        """``block`` is handed out anew; lanes drop what it held."""
        held = self._blocks.get(block)
        for lane in held.owners if held else ():
            if lane in self._lanes and held:
                self._lanes.drop(lane, held.place)
                start = held.place * self._block_size
                self._remove(lane, start, start + self._block_size)
        self._blocks[block] = _Block(place, {owner})

    def _disown(self, lane: int, blocks: tuple[int, ...]) -> None:
        for block in blocks:
            self._blocks[block].owners.discard(lane)

    def _share(self, source: int, target: int, place: int, end: int) -> None:
        # What one of the two is yet to compute in this step comes first.
        late = source in self._behind or target in self._behind
        operations = self._late if late else self._operations
        if late:
            self._behind.add(target)
        start = place * self._block_size
        last = operations[-1] if operations else None
        if isinstance(last, Share) and (last.source, last.target, last.end) == (source, target, start):
            operations[-1] = Share(source, target, last.start, end)
        else:
            operations.append(Share(source, target, start, end))

    def _remove(self, lane: int, start: int, end: int) -> None:
        last = self._operations[-1] if self._operations else None
        if isinstance(last, Remove) and (last.sequence, last.end) == (lane, start) and last.end != END:
            self._operations[-1] = Remove(lane, last.start, end)
        else:
            self._operations.append(Remove(lane, start, end))

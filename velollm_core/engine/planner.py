"""How a step is filled: decodes, prompts, newcomers; and who gives way when blocks run out."""

from __future__ import annotations

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.output import ScheduledChunk, SchedulerOutput, Swap
from velollm_core.engine.roster import Roster
from velollm_core.engine.sequence import Sequence, SequenceStatus
from velollm_core.engine.step_builder import StepBuilder


class StepPlanner:
    """Fills one step after the other from the roster."""

    def __init__(self, limits: SchedulerLimits, blocks: BlockManager, roster: Roster) -> None:
        self._limits = limits
        self._blocks = blocks
        self._roster = roster
        self._block_size = blocks.layout.block_size
        self._speculating = limits.max_draft_tokens > 0
        self._windowed = any(group.window is not None for group in blocks.layout.groups)
        self._refused: tuple[Sequence, int] | None = None

    def plan(self) -> SchedulerOutput:
        """The next step; it counts as launched unless it is empty."""
        roster = self._roster
        step = StepBuilder(roster.departures.launched + 1, self._limits.max_num_batched_tokens)
        self._decode(step)
        for sequence in tuple(roster.prefilling):
            if step.budget and sequence.status is SequenceStatus.RUNNING:
                self._prefill(sequence, step)
        while step.budget and roster.num_running < self._limits.max_num_seqs:
            newcomer = roster.waiting.peek()
            if newcomer is None or not self._admit(newcomer, step):
                break
        if step.is_empty:
            return SchedulerOutput(step.step)
        roster.departures.launched = step.step
        released, roster.released = roster.released, []
        return step.build(self._blocks.take_changes(), released)

    def _decode(self, step: StepBuilder) -> None:
        """One token of each decoding sequence, oldest first; whoever is preempted here stands further back."""
        batch = self._roster.decoding
        step.tick = batch.clock.ticks
        held = [sequence for sequence in batch.due() if sequence in batch and not self._attend(sequence, step)]
        step.decodes, step.bases = batch.advance(held)
        step.budget -= len(step.decodes)

    def _attend(self, sequence: Sequence, step: StepBuilder) -> bool:
        """See to what a decode needs beyond one token; whether it then is an ordinary decode in this step."""
        start, last = sequence.num_computed, sequence.max_length - 2
        if sequence.awaiting or start > last:
            return False
        if sequence.draft_token_ids and (drafts := self._drafts(sequence, step)):
            self._verify(sequence, drafts, step)
            return False
        if not self._blocks.allocate(sequence, start + 1) and not self._grow(sequence, start + 1, step):
            return False
        if self._speculating:
            sequence.awaiting = True
        offset = start % self._block_size
        if self._windowed and not offset:
            step.commits.append((sequence, start + 1))
        if start == last:
            step.final.append(sequence)
        ahead = 1 if self._speculating or start == last else min(last - start, self._block_size - offset)
        self._roster.decoding.wake(sequence, ahead)
        return True

    def _verify(self, sequence: Sequence, drafts: tuple[int, ...], step: StepBuilder) -> None:
        start = sequence.num_computed
        if self._grow(sequence, start + 1 + len(drafts), step):
            step.add(ScheduledChunk(sequence, start, (sequence.token_ids[start], *drafts), samples=1 + len(drafts)))
            sequence.num_computed += 1 + len(drafts)
            sequence.awaiting = True

    def _drafts(self, sequence: Sequence, step: StepBuilder) -> tuple[int, ...]:
        """As many drafts as fit the answer, the free blocks, and the budget that others do not need to decode."""
        start = sequence.num_computed
        others = len(self._roster.decoding.members) - len(step.chunks)
        room = min(sequence.max_length - 2, self._blocks.room(sequence) - 1) - start
        return sequence.draft_token_ids[: max(0, min(room, step.budget - others))]

    def _prefill(self, sequence: Sequence, step: StepBuilder) -> None:
        start, known = sequence.num_computed, len(sequence.token_ids)
        room = self._blocks.room(sequence) - start
        if room < 1 and self._windowed and sequence.num_retired < start:
            return  # its own window frees blocks when the chunk in flight has retired
        end = start + max(1, min(known - start, step.budget, room))
        if not self._grow(sequence, end, step):
            return
        sequence.num_computed = end
        step.add(ScheduledChunk(sequence, start, tuple(sequence.token_ids[start:end]), samples=int(end == known)))
        step.commits.append((sequence, end))
        if end == known:
            sequence.awaiting = self._speculating
            self._roster.start_decoding(sequence)

    def _admit(self, sequence: Sequence, step: StepBuilder) -> bool:
        busy, free = bool(self._roster.num_running), self._blocks.num_free_blocks
        if busy and self._refused and self._refused[0] is sequence and free <= self._refused[1]:
            return False
        swapped = sequence.status is SequenceStatus.SWAPPED
        if not swapped:
            self._share(sequence)
        whole = min(len(sequence.token_ids) + 1, sequence.max_length - 1)
        reserve = self._limits.watermark if busy else 0.0
        wanted = sequence.num_computed + (not swapped)
        if not self._blocks.admits(sequence, whole, reserve) or not self._blocks.allocate(sequence, wanted):
            self._blocks.free(sequence)
            self._refused = (sequence, free)
            return False
        self._roster.start(sequence)
        if swapped:
            sequence.num_retired = 0
            step.swaps_in.append(Swap(sequence, wanted, tuple(map(tuple, sequence.block_tables))))
        self._prefill(sequence, step)
        return True

    def _share(self, sequence: Sequence) -> None:
        """Take over what the cache holds already: a running parent's blocks, or a known prefix.

        `allocate` follows at once, so a fork copies the block it shares in part before its parent writes again.
        """
        parent = sequence.parent
        if parent and not sequence.num_preemptions and parent.status is SequenceStatus.RUNNING:
            if self._blocks.fork(parent, sequence):
                return
            self._blocks.free(sequence)
        hit = self._blocks.match(sequence)
        if not sequence.num_preemptions:
            sequence.num_cached = hit

    def _grow(self, sequence: Sequence, num_tokens: int, step: StepBuilder) -> bool:
        while not self._blocks.allocate(sequence, num_tokens):
            if not self._make_room(sequence, step):
                return False
        return True

    def _make_room(self, sequence: Sequence, step: StepBuilder) -> bool:
        """Preempt the newest sequence for ``sequence``; whether its blocks are free at once."""
        newest = self._roster.newest
        if self._roster.departures or newest.order <= sequence.order:
            return False
        after = step.step if step.includes(newest) else self._roster.departures.launched
        size = newest.num_computed
        swap = size and not newest.awaiting and after < step.step
        if swap and sum(self._roster.swapped.values()) + size <= self._limits.swap_tokens:
            step.swaps_out.append(Swap(newest, size, tuple(map(tuple, newest.block_tables))))
            self._roster.suspend(newest, SequenceStatus.SWAPPED, step.step)
        else:
            self._roster.suspend(newest, SequenceStatus.PREEMPTED, after)
        return not self._roster.departures

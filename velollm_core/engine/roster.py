"""Which sequences there are, and where each stands: waiting, prefilling, decoding, leaving."""

from __future__ import annotations

from bisect import insort

from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.decode_batch import DecodeBatch, by_order
from velollm_core.engine.departures import Departures
from velollm_core.engine.scheduling import SchedulerStats
from velollm_core.engine.sequence import FinishReason, Sequence, SequenceStatus
from velollm_core.engine.waiting import WaitingQueue
from velollm_core.errors import VeloError


class Roster:
    """Moves sequences from one place to the next; each is in exactly one.

    ``prefilling`` (oldest first) and ``decoding`` run. ``released`` are those whose state the executor may forget,
    ``stop_ids`` all tokens that have ended or may end a sequence.
    """

    def __init__(self, blocks: BlockManager, patience: int) -> None:
        self._blocks = blocks
        self._known: dict[str, Sequence] = {}
        self._siblings: dict[str, list[Sequence]] = {}
        self.waiting = WaitingQueue(patience)
        self.prefilling: list[Sequence] = []
        self.decoding = DecodeBatch()
        self.departures = Departures()
        self.swapped: dict[Sequence, int] = {}
        self.released: list[Sequence] = []
        self.stop_ids: set[int] = set()
        self.finished = self.preemptions = self.swaps = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, sequence: Sequence) -> bool:
        return self._known.get(sequence.id) is sequence

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks and are not leaving."""
        return len(self.prefilling) + len(self.decoding.members)

    @property
    def newest(self) -> Sequence:
        """The running sequence that came last; there must be one."""
        return max((queue[-1] for queue in (self.prefilling, self.decoding.members) if queue), key=by_order)

    def stats(self) -> SchedulerStats:
        """The counters, now."""
        return SchedulerStats(
            running=self.num_running,
            leaving=len(self.departures),
            waiting=len(self.waiting) + sum(map(len, self._siblings.values())),
            swapped=len(self.swapped),
            finished=self.finished,
            preemptions=self.preemptions,
            swaps=self.swaps,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a newcomer; one whose parent's prompt is not computed yet waits for that first."""
        if sequence.id in self._known:
            raise VeloError(f"request {sequence.id} is in the engine already: give each its own id")
        self._known[sequence.id] = sequence
        self.stop_ids |= sequence.stop_ids
        self.waiting.register(sequence)
        parent = sequence.parent
        if parent and parent in self and parent.num_retired < parent.num_prompt_tokens:
            self._siblings.setdefault(parent.id, []).append(sequence)
        else:
            self.waiting.push(sequence)

    def start(self, sequence: Sequence) -> None:
        """The first of the queue runs now, beginning with what it has to prefill."""
        self.waiting.pop()
        self.swapped.pop(sequence, None)
        sequence.status = SequenceStatus.RUNNING
        insort(self.prefilling, sequence, key=by_order)

    def start_decoding(self, sequence: Sequence) -> None:
        """A prefilling sequence has been scheduled up to its last token."""
        self.prefilling.remove(sequence)
        self.decoding.add(sequence)

    def prompt_ready(self, parent: Sequence) -> None:
        """Let those wait in the queue that waited for the prompt of ``parent``."""
        for sequence in self._siblings.pop(parent.id, ()):
            self.waiting.push(sequence)

    def suspend(self, sequence: Sequence, status: SequenceStatus, after: int) -> None:
        """Preempt a running sequence; it queues again once step ``after`` has retired."""
        self.preemptions += 1
        sequence.num_preemptions += 1
        self._leave(sequence, after)
        sequence.status = status
        if status is SequenceStatus.SWAPPED:
            self.swaps += 1
            self.swapped[sequence] = sequence.num_computed
        self.release_departed()

    def finish(self, sequence: Sequence, reason: FinishReason, after: int) -> None:
        """End a sequence that runs or is leaving; its blocks are free once step ``after`` has retired."""
        if sequence.status is SequenceStatus.RUNNING:
            self._leave(sequence, after)
        self._close(sequence, reason)

    def abort(self, sequence_id: str) -> bool:
        """End a sequence wherever it stands; False if there is none of that id."""
        sequence = self._known.get(sequence_id)
        if sequence is None or sequence.is_finished:
            return False
        if sequence.status is SequenceStatus.RUNNING or sequence in self.departures:
            self.finish(sequence, "abort", self.departures.launched)
            self.release_departed()
            return True
        siblings = self._siblings.get(sequence.parent.id, []) if sequence.parent else []
        if sequence in siblings:
            siblings.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._close(sequence, "abort")
        self._forget(sequence)
        return True

    def release_departed(self) -> None:
        """Take back the blocks of those whose last step has retired."""
        for sequence in self.departures.take():
            self._blocks.commit(sequence, min(sequence.num_computed, len(sequence.token_ids)))
            self._blocks.free(sequence)
            if sequence.is_finished:
                self._forget(sequence)
                continue
            if sequence.status is SequenceStatus.PREEMPTED:
                self.released.append(sequence)
            self.waiting.push(sequence)

    def _leave(self, sequence: Sequence, after: int) -> None:
        if sequence in self.decoding:
            self.decoding.remove(sequence)
        else:
            self.prefilling.remove(sequence)
        self.departures.leave(sequence, after)

    def _close(self, sequence: Sequence, reason: FinishReason) -> None:
        sequence.status = SequenceStatus.ABORTED if reason == "abort" else SequenceStatus.FINISHED
        sequence.finish_reason = reason
        self.finished += 1
        self.swapped.pop(sequence, None)
        self.prompt_ready(sequence)

    def _forget(self, sequence: Sequence) -> None:
        del self._known[sequence.id]
        self.released.append(sequence)

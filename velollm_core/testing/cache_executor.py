"""An executor with a real cache and a pretended model: it notices every mistake in who writes which block."""

from __future__ import annotations

from collections import deque
from zlib import crc32

from attrs import define, field

from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.output import ScheduledChunk, SchedulerOutput, Swap
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence

Entry = tuple[int, int]


def next_token(history: list[Entry], seed: int, vocabulary: int) -> int:
    """The pretended model: a digest of the (position, token) pairs it attends to."""
    return crc32(repr((seed, history)).encode()) % vocabulary


def expected_tokens(
    prompt: list[int], count: int, seed: int = 0, *, vocabulary: int = 50, windows: tuple[int | None, ...] = (None,)
) -> list[int]:
    """What `CacheExecutor` must produce after ``prompt``, computed without a cache."""
    tokens = list(prompt)
    for _ in range(count):
        entries = list(enumerate(tokens))
        seen = [entry for window in windows for entry in (entries[-window:] if window else entries)]
        tokens.append(next_token(seen, seed, vocabulary))
    return tokens[len(prompt) :]


@define(eq=False)
class _State:
    tables: list[list[int]]
    length: int = 0
    last_token: int = -1
    saved: list[list[Entry]] = field(factory=list)
    num_saved: int = 0


class CacheExecutor:
    """Keeps (position, token) pairs in blocks and gives back what it reads there.

    It learns of tables, copies and swaps from `SchedulerOutput` alone and answers ``lateness`` steps late. With
    ``drafts`` above 0 it proposes that many tokens, of which a varying number is right.
    """

    def __init__(self, layout: KVCacheLayout, *, lateness: int = 0, vocabulary: int = 50, drafts: int = 0) -> None:
        self._layout = layout
        self._lateness = lateness
        self._vocabulary = vocabulary
        self._drafts = drafts
        self._states: dict[Sequence, _State] = {}
        self._memory: list[dict[int, Entry]] = [{} for _ in layout.groups]
        self._results: deque[StepResults] = deque()
        self.max_tokens = 0
        self.max_saved = 0

    @property
    def known(self) -> set[Sequence]:
        """The sequences that it has state of: those that were not released."""
        return set(self._states)

    @property
    def depth(self) -> int:
        """One more than the steps it answers late."""
        return self._lateness + 1

    def launch(self, output: SchedulerOutput) -> None:
        """Do the whole step at once; only the answer waits."""
        self.max_tokens = max(self.max_tokens, output.num_tokens)
        for sequence in output.released:
            self._states.pop(sequence, None)
        for swap in output.swaps_out:
            self._swap_out(swap)
        self.max_saved = max(self.max_saved, sum(state.num_saved for state in self._states.values()))
        self._update_tables(output)
        for swap in output.swaps_in:
            self._swap_in(swap)
        written: dict[tuple[int, int], Sequence] = {}
        rows: list[int] = []
        accepted: dict[int, tuple[int, ...]] = {}
        for sequence, position in zip(output.decodes, output.positions, strict=True):
            self._write(sequence, position, (self._states[sequence].last_token,), written)
            rows.append(self._sample(sequence, position))
        for chunk in output.chunks:
            self._write(chunk.sequence, chunk.start, chunk.token_ids, written)
            if chunk.samples:
                tokens = self._verify(chunk)
                if len(tokens) > 1:
                    accepted[len(rows)] = tokens
                rows.append(tokens[0])
        self._results.append(StepResults(rows, accepted, self._propose(output.sampled)))

    def collect(self) -> StepResults:
        """The oldest answer."""
        return self._results.popleft()

    def close(self) -> None:
        """Nothing to let go of."""

    def _update_tables(self, output: SchedulerOutput) -> None:
        for update in output.table_updates:
            state = self._states.setdefault(update.sequence, _State([[] for _ in self._layout.groups]))
            table = state.tables[update.group]
            assert len(table) >= update.start, "a table grows without a gap"
            assert update.start or not any(table), f"{update.sequence.id} begins again and was not released before"
            table[update.start :] = update.blocks
        size = self._layout.block_size
        for copy in output.copies:
            memory = self._memory[copy.group]
            for slot in range(size):
                entry = memory.get(copy.source * size + slot)
                if entry is not None:
                    memory[copy.target * size + slot] = entry
            self._states[copy.sequence].tables[copy.group][copy.index] = copy.target

    def _write(
        self, sequence: Sequence, start: int, tokens: tuple[int, ...], written: dict[tuple[int, int], Sequence]
    ) -> None:
        size = self._layout.block_size
        assert start + len(tokens) < sequence.max_length, f"{sequence.id} computes tokens beyond its end"
        for group, table in enumerate(self._states[sequence].tables):
            for position, token in enumerate(tokens, start):
                block = table[position // size]
                assert block, f"{sequence.id} writes token {position} to the null block of group {group}"
                owner = written.setdefault((group, block), sequence)
                assert owner is sequence, f"{sequence.id} and {owner.id} both write block {block} of group {group}"
                self._memory[group][block * size + position % size] = (position, token)

    def _read(self, sequence: Sequence, num_tokens: int) -> list[Entry]:
        size = self._layout.block_size
        seen: list[Entry] = []
        for layer, table, memory in zip(self._layout.groups, self._states[sequence].tables, self._memory, strict=True):
            first = max(0, num_tokens - layer.window) if layer.window else 0
            seen += [
                memory.get(table[position // size] * size + position % size, (-1, -1))
                for position in range(first, num_tokens)
            ]
        return seen

    def _sample(self, sequence: Sequence, position: int) -> int:
        history = self._read(sequence, position + 1)
        token = next_token(history, sequence.sampling.seed or 0, self._vocabulary)
        state = self._states[sequence]
        state.length, state.last_token = position + 1, token
        return token

    def _verify(self, chunk: ScheduledChunk) -> tuple[int, ...]:
        first = chunk.start + len(chunk.token_ids) - chunk.samples
        drafts = chunk.token_ids[len(chunk.token_ids) - chunk.samples + 1 :]
        tokens = []
        for offset in range(chunk.samples):
            tokens.append(self._sample(chunk.sequence, first + offset))
            if offset < len(drafts) and drafts[offset] != tokens[-1]:
                break
        return tuple(tokens)

    def _propose(self, sampled: tuple[Sequence, ...]) -> dict[int, tuple[int, ...]]:
        if not self._drafts:
            return {}
        return {row: self._guess(sequence) for row, sequence in enumerate(sampled)}

    def _guess(self, sequence: Sequence) -> tuple[int, ...]:
        """What a model with full attention says next, wrong from some token on."""
        state = self._states[sequence]
        history = [*self._read(sequence, state.length), (state.length, state.last_token)]
        right = crc32(repr(history).encode()) % (self._drafts + 1)
        guesses = []
        for count in range(self._drafts):
            token = next_token(history, sequence.sampling.seed or 0, self._vocabulary)
            guesses.append(token if count < right else (token + 1) % self._vocabulary)
            history.append((state.length + count + 1, token))
        return tuple(guesses)

    def _swap_out(self, swap: Swap) -> None:
        size = self._layout.block_size
        state = self._states[swap.sequence]
        state.saved = [
            [
                memory.get(table[position // size] * size + position % size, (-1, -1))
                for position in range(swap.num_tokens)
            ]
            for table, memory in zip(swap.block_tables, self._memory, strict=True)
        ]
        state.tables = [[] for _ in self._layout.groups]
        state.num_saved = swap.num_tokens

    def _swap_in(self, swap: Swap) -> None:
        size = self._layout.block_size
        state = self._states[swap.sequence]
        state.num_saved = 0
        for entries, table, memory in zip(state.saved, swap.block_tables, self._memory, strict=True):
            for position, entry in enumerate(entries):
                if table[position // size]:
                    memory[table[position // size] * size + position % size] = entry

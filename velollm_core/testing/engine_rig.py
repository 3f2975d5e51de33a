"""A whole engine over a pretended model, checked after every step: what the properties and contracts drive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import evolve

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.blocks import BlockManager
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.scheduling import Scheduler
from velollm_core.engine.sequence import Sequence, SequenceStatus
from velollm_core.errors import OutOfBlocks
from velollm_core.testing.cache_executor import CacheExecutor, expected_tokens

MakeBlocks = Callable[[KVCacheLayout, int], BlockManager]
MakeScheduler = Callable[[SchedulerLimits, BlockManager], Scheduler]


class EngineRig:
    """Adds, aborts and steps, and holds the engine to its promises.

    After each step: what sequences hold is what is used, the budget was kept, no block was written by two. At the
    end of a sequence: its tokens are those of the model alone, whatever was shared, preempted, cut into chunks or
    answered late.
    """

    def __init__(
        self,
        make_blocks: MakeBlocks,
        make_scheduler: MakeScheduler,
        layout: KVCacheLayout,
        memory: int,
        limits: SchedulerLimits,
        lateness: int = 0,
    ) -> None:
        self.layout = layout
        self.blocks = make_blocks(layout, memory)
        self.scheduler = make_scheduler(limits, self.blocks)
        self.executor = CacheExecutor(layout, lateness=lateness, drafts=limits.max_draft_tokens)
        self.loop = EngineLoop(self.scheduler, self.executor)
        self.live: dict[str, Sequence] = {}
        self._leaving: list[Sequence] = []
        self.refusals: list[str] = []
        self.ended = self.steps = self._names = 0

    def add(
        self,
        prompt: list[int],
        sampling: SamplingParams,
        *,
        priority: int = 0,
        stop: int | None = None,
        parent: Sequence | None = None,
    ) -> Sequence | None:
        """A new sequence, or None if the engine refuses it for good."""
        self._names += 1
        sequence = Sequence(
            f"s{self._names}",
            list(prompt),
            sampling,
            frozenset() if stop is None else frozenset({stop}),
            priority,
            parent,
        )
        try:
            self.scheduler.add(sequence)
        except OutOfBlocks as refusal:
            self.refusals.append(str(refusal))
            return None
        self.live[sequence.id] = sequence
        return sequence

    def fork(self, parent: Sequence, seed: int) -> Sequence | None:
        """A sibling of ``parent``, which shares its prompt."""
        prompt = parent.token_ids[: parent.num_prompt_tokens]
        return self.add(prompt, evolve(parent.sampling, seed=seed), parent=parent)

    def abort(self, sequence: Sequence) -> None:
        """End ``sequence`` from outside."""
        assert self.scheduler.abort(sequence.id)
        assert sequence.status is SequenceStatus.ABORTED
        self._leaving.append(self.live.pop(sequence.id))
        self.check()

    def step(self) -> None:
        """One round of the loop, then every check."""
        retired = self.loop.step()
        self.steps += 1
        if retired is not None:
            for sequence in retired.ended:
                self._leaving.append(self.live.pop(sequence.id))
                self._check_answer(sequence)
        self.check()

    def drain(self, limit: int = 100_000) -> None:
        """Step until idle: every sequence must end, and nothing be left behind."""
        for _ in range(limit):
            if self.loop.is_idle:
                break
            self.step()
        assert self.loop.is_idle, f"the engine does not finish: {self.scheduler.stats()}"
        assert not self.live, "every sequence ends"
        usage = self.blocks.usage()
        assert usage.used == 0, f"{usage.used} blocks leaked"
        assert usage.bytes_saved == 0
        assert not self.scheduler.has_work
        assert self.scheduler.stats().swapped == 0, "nothing is kept outside the cache for those that ended"

    def check(self) -> None:
        """What must hold between any two calls."""
        limits, stats, usage = self.scheduler.limits, self.scheduler.stats(), self.blocks.usage()
        assert self.executor.max_tokens <= limits.max_num_batched_tokens, "the token budget was exceeded"
        assert stats.running <= limits.max_num_seqs
        assert self.executor.max_saved <= limits.swap_tokens, "more was swapped out than there is room for"
        assert 0 <= self.blocks.num_free_blocks <= usage.total
        assert 0 <= usage.wasted_slots <= usage.slots
        assert usage.used + usage.cached <= usage.total
        owners = self.owners()
        assert usage.used == sum(map(len, owners)), "blocks in use are those in the tables"
        saved = (
            (owned.total() - len(owned)) * size for owned, size in zip(owners, self.layout.bytes_per_block, strict=True)
        )
        assert usage.bytes_saved == sum(saved), "reference counts equal the tables"

    def owners(self) -> list[Counter[int]]:
        """How many sequences hold each block, per group; one that ended does until its last step has retired."""
        owners: list[Counter[int]] = [Counter() for _ in self.layout.groups]
        self._leaving = [sequence for sequence in self._leaving if sequence.block_tables]
        for sequence in (*self.live.values(), *self._leaving):
            for group, table in enumerate(sequence.block_tables):
                owners[group].update(block for block in table if block)
        return owners

    def _check_answer(self, sequence: Sequence) -> None:
        self.ended += 1
        produced = sequence.output_token_ids
        prompt = sequence.token_ids[: sequence.num_prompt_tokens]
        windows = tuple(group.window for group in self.layout.groups)
        wanted = expected_tokens(prompt, len(produced), sequence.sampling.seed or 0, windows=windows)
        assert produced == wanted, f"{sequence.id} gave {produced}, the model alone gives {wanted}"
        least = sequence.sampling.min_tokens
        stopped = len(produced) > least and produced[-1] in sequence.stop_ids
        assert sequence.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(produced) == sequence.sampling.max_tokens
        assert not set(produced[least:-1]) & sequence.stop_ids

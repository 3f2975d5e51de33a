"""Block tables over sequence ids, held by cells that behave like llama.cpp's and a pretended model."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from random import Random

import pytest
from attrs import define, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from velollm_llamacpp.engine.executor import LlamaCppExecutor
from velollm_llamacpp.engine.kv_cache import PagedKvCache
from velollm_llamacpp.engine.lanes import Lanes
from velollm_llamacpp.engine.messages import (
    CacheFull,
    Discard,
    Operation,
    Recompute,
    Remove,
    Restore,
    Run,
    Sampled,
    Save,
    Share,
    Step,
)

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.output import SchedulerOutput
from velollm_core.errors import BackendError
from velollm_core.testing.cache_executor import next_token
from velollm_core.testing.engine_machine import some_request
from velollm_core.testing.engine_rig import EngineRig

SHORT = SamplingParams(max_tokens=5)


@define(eq=False)
class Cell:
    """A token at a position, and the sequence ids that hold it."""

    position: int
    token: int
    owners: set[int]


@define(eq=False)
class PretendedChild:
    """Does what a `Step` says as llama.cpp would: a limited number of cells, positions without a gap."""

    size: int
    rig: EngineRig
    cells: list[Cell] = field(factory=list)
    saved: dict[str, list[tuple[int, int]]] = field(factory=dict)
    most: int = 0
    most_saved: int = 0
    recomputed: int = 0
    replies: deque[Sampled | CacheFull] = field(factory=deque)

    def send(self, step: Step) -> None:
        self.replies.append(self.ask(step))

    def receive(self) -> Sampled | CacheFull:
        return self.replies.popleft()

    def ask(self, step: Step) -> Sampled | CacheFull:
        self.recomputed = 0
        for operation in step.operations:
            self.carry_out(operation)
        if len(self.cells) + sum(len(run.token_ids) for run in step.runs) > self.size:
            return CacheFull()
        return Sampled(tuple(self.run(step.runs)), (), self.recomputed)

    def run(self, runs: tuple[Run, ...]) -> Iterator[int]:
        for run in runs:
            self.write(run.sequence, run.start, run.token_ids)
            if run.draw is not None:
                history = [(cell.position, cell.token) for cell in self.held(run.sequence)]
                yield next_token(history, self.seed(run.sequence), 50)

    def seed(self, sequence: int) -> int:
        live = self.rig.executor.cache._live
        (found,) = [each for each, state in live.items() if state.id == sequence]
        return found.sampling.seed or 0

    def held(self, sequence: int) -> list[Cell]:
        return sorted((cell for cell in self.cells if sequence in cell.owners), key=lambda cell: cell.position)

    def write(self, sequence: int, start: int, tokens: tuple[int, ...]) -> None:
        assert [cell.position for cell in self.held(sequence)] == list(range(start)), "positions follow one another"
        self.cells += [Cell(start + offset, token, {sequence}) for offset, token in enumerate(tokens)]
        assert len(self.cells) <= self.size, "cells are never more than the account has"
        self.most = max(self.most, len(self.cells))

    def carry_out(self, operation: Operation) -> None:
        match operation:
            case Remove(sequence, start, end):
                for cell in self.held(sequence):
                    if start <= cell.position and (end < 0 or cell.position < end):
                        cell.owners.discard(sequence)
                self.cells = [cell for cell in self.cells if cell.owners]
            case Share(source, target, start, end):
                cells = [cell for cell in self.held(source) if start <= cell.position < end]
                assert [cell.position for cell in cells] == list(range(start, end)), "the source holds what is shared"
                assert not [cell for cell in self.held(target) if start <= cell.position < end]
                for cell in cells:
                    cell.owners.add(target)
            case Save(sequence, key):
                self.saved[key] = [(cell.position, cell.token) for cell in self.held(sequence)]
                self.most_saved = max(self.most_saved, sum(map(len, self.saved.values())))
            case Restore(sequence, key, token_ids):
                assert tuple(token for _, token in self.saved.pop(key)) == token_ids
                self.write(sequence, 0, token_ids)
            case Discard(key):
                del self.saved[key]
            case Recompute(sequence, start, token_ids):
                self.write(sequence, start, token_ids)
                self.recomputed += len(token_ids)


class CountingExecutor(LlamaCppExecutor):
    """Tells the rig the most tokens of a step, and the most that were swapped out."""

    max_tokens = 0

    @property
    def max_saved(self) -> int:
        return self.process.most_saved

    def launch(self, output: SchedulerOutput) -> None:
        self.max_tokens = max(self.max_tokens, output.num_tokens)
        super().launch(output)


class LlamaRig(EngineRig):
    """The core's rig, its executor replaced by ours over the pretended child."""

    def connect(self, lanes: int, *, cells: int | None = None) -> LlamaRig:
        usage = self.blocks.usage()
        limits = self.scheduler.limits
        self.child = PretendedChild(cells or usage.total * self.layout.block_size, self)
        cache = PagedKvCache(self.layout.block_size, 2 * limits.max_num_seqs, lanes)
        self.executor = CountingExecutor(self.child, cache)
        self.loop.executor = self.executor
        return self


def make_rig(random: Random, **changes: int) -> LlamaRig:
    block_size = random.choice([1, 2, 4, 8])
    places = random.randint(1, 5)
    limits = SchedulerLimits(
        max_num_seqs=places,
        max_num_batched_tokens=places + random.randint(0, 20),
        max_model_len=random.randint(20, 80),
        watermark=random.choice([0.0, 0.1]),
        swap_tokens=changes.get("swap", random.choice([0, 30, 1000])),
        patience=random.choice([0, 1000]),
    )
    layout = KVCacheLayout((KVGroup(1, 4),), block_size)
    memory = random.randint(40, 120) // block_size * 4 * block_size
    rig = LlamaRig(default_block_manager, default_scheduler, layout, memory, limits)
    return rig.connect(changes.get("lanes", random.choice([0, 1, 2, 8])))


def drive(rig: LlamaRig, random: Random, rounds: int) -> None:
    for _ in range(rounds):
        action = random.random()
        if action < 0.4:
            some_request(random, rig)
        elif action < 0.5 and rig.live:
            rig.fork(random.choice(list(rig.live.values())), random.randint(0, 2))
        elif action < 0.58 and rig.live:
            rig.abort(random.choice(list(rig.live.values())))
        else:
            rig.step()
    rig.drain()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_answers_are_those_of_the_model_alone(seed: int) -> None:
    """Whatever was shared, kept, lost, preempted, swapped or aborted; and never more cells than accounted for."""
    random = Random(seed)
    rig = make_rig(random)
    drive(rig, random, 60)
    assert rig.executor.full_caches == 0
    last = rig.add([1], SHORT)
    rig.drain()
    assert not rig.child.saved, "no state is kept of those that are gone"
    assert set(rig.executor.cache._live) <= {last}


def test_kept_blocks_spare_work_and_lost_ones_only_cost_some() -> None:
    prompt = [7 * index % 50 for index in range(40)]
    computed = {}
    for lanes in (0, 4):
        layout = KVCacheLayout((KVGroup(1, 4),), 4)
        limits = SchedulerLimits(max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64)
        rig = LlamaRig(default_block_manager, default_scheduler, layout, 33 * 16, limits).connect(lanes)
        for _ in range(2):
            rig.add(prompt, SHORT)
            rig.drain()
        computed[lanes] = rig.executor.recomputed_tokens
    assert computed == {0: 36, 4: 0}


def test_a_full_cache_lets_go_of_kept_blocks_and_tries_again() -> None:
    layout = KVCacheLayout((KVGroup(1, 4),), 4)
    limits = SchedulerLimits(max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64)
    rig = LlamaRig(default_block_manager, default_scheduler, layout, 33 * 16, limits).connect(4, cells=100)
    for stem in (1, 2, 3):
        rig.add([stem] * 40, SHORT)
        rig.drain()
    assert rig.executor.full_caches == 1
    rig.add([2] * 41, SHORT)
    rig.drain()
    assert rig.executor.recomputed_tokens > 0, "the account still counted on what had been let go"


def test_the_lane_that_was_used_longest_ago_gives_way() -> None:
    lanes = Lanes([7, 8])
    assert lanes.room_for({0: 1, 1: 2}) == (7, ())
    assert lanes.room_for({0: 3}) == (8, ())
    assert lanes.room_for({1: 4}) == (8, ()), "beside what it holds at another place"
    lanes.use(7)
    assert lanes.room_for({0: 5}) == (8, (3, 4))
    assert lanes.room_for({0: 6}) == (7, (1, 2))
    lanes.drop(7, 0)
    assert lanes.clear() == {8: (5,)}
    assert Lanes([]).room_for({0: 1}) == (None, ())


def test_a_cache_that_stays_full_is_an_error() -> None:
    layout = KVCacheLayout((KVGroup(1, 4),), 4)
    limits = SchedulerLimits(max_num_seqs=2, max_num_batched_tokens=64, max_model_len=64)
    rig = LlamaRig(default_block_manager, default_scheduler, layout, 33 * 16, limits).connect(4, cells=20)
    rig.add([1] * 40, SHORT)
    with pytest.raises(BackendError, match="no cells where its account has some"):
        rig.drain()

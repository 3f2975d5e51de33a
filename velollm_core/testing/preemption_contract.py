"""What every scheduler must do when blocks run out: who gives way, how, and that nothing is lost by it."""

from __future__ import annotations

from random import Random

import pytest

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.sequence import Sequence
from velollm_core.testing.engine_machine import some_request
from velollm_core.testing.scheduler_kit import SchedulerUnderTest, answer


class PreemptionContract(SchedulerUnderTest):
    """A part of `SchedulerContract`."""

    @pytest.mark.parametrize("lateness", [0, 1, 2])
    def test_preemption_changes_no_answer(self, lateness: int) -> None:
        for swap_tokens in (0, 1000):
            rig = self.rig(SchedulerLimits(4, 64, 60, swap_tokens=swap_tokens), num_blocks=16, lateness=lateness)
            sequences = [rig.add([index, 9, 9, 9, 9], SamplingParams(max_tokens=30)) for index in range(4)]
            rig.drain()
            stats = rig.scheduler.stats()
            assert stats.preemptions > 0
            assert not any(sequence.num_cached for sequence in sequences if sequence), "its own blocks are no hit"
            assert (stats.swaps > 0) == (swap_tokens > 0)
            assert rig.ended == 4

    @pytest.mark.parametrize("swap_tokens", [0, 1000])
    @pytest.mark.parametrize("lateness", [0, 1, 2])
    def test_an_urgent_prompt_takes_blocks_from_one_that_decodes_in_the_same_step(
        self, lateness: int, swap_tokens: int
    ) -> None:
        limits = SchedulerLimits(3, 6, 60, watermark=0.0, swap_tokens=swap_tokens)
        rig = self.rig(limits, num_blocks=12, lateness=lateness)
        for index in range(2):
            rig.add([index, 1, 2, 3], SamplingParams(max_tokens=30), priority=1)
        for _ in range(2 + lateness):
            rig.step()
        urgent = rig.add(list(range(28)), SamplingParams(max_tokens=4))
        assert urgent
        rig.drain()
        assert urgent.num_preemptions == 0
        assert rig.scheduler.stats().preemptions > 0

    def test_the_oldest_is_never_preempted(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60), num_blocks=16)
        oldest = rig.add([1, 2, 3], SamplingParams(max_tokens=40))
        assert oldest
        for index in range(6):
            rig.add([index, 5, 6], SamplingParams(max_tokens=40))
        rig.drain()
        assert oldest.num_preemptions == 0
        assert rig.scheduler.stats().preemptions > 0

    def test_nobody_is_preempted_for_blocks_that_are_coming_back_anyway(self) -> None:
        rig = self.rig(SchedulerLimits(3, 64, 60, watermark=0.0), num_blocks=4)
        old, gone, young = (Sequence(name, [ord(name)] * 3, SamplingParams(max_tokens=6)) for name in "abc")
        for sequence in (old, gone, young):
            rig.scheduler.add(sequence)
        first, second = rig.scheduler.schedule(), rig.scheduler.schedule()
        rig.scheduler.abort("b")
        third = rig.scheduler.schedule()
        assert old not in third.decodes, "it waits for a block"
        for step in (first, second):
            rig.scheduler.update(step, answer(step))
        assert old in rig.scheduler.schedule().decodes
        assert young.num_preemptions == 0

    def test_a_sibling_of_one_that_was_swapped_out_shares_what_came_back(self) -> None:
        rig = self.rig(SchedulerLimits(3, 64, 60, watermark=0.0, swap_tokens=1000), num_blocks=8)
        assert rig.add([1, 2, 3], SamplingParams(max_tokens=21))
        parent = rig.add([4, 5, 6, 7, 8, 9], SamplingParams(max_tokens=14))
        assert parent
        while not rig.scheduler.stats().swapped:
            rig.step()
        assert rig.fork(parent, seed=3)
        rig.drain()
        assert rig.ended == 3

    def test_who_found_no_blocks_comes_when_there_are_some(self) -> None:
        rig = self.rig(SchedulerLimits(3, 64, 60, watermark=0.0), num_blocks=8)
        short, long = (rig.add([index] * 9, SamplingParams(max_tokens=count)) for index, count in ((1, 3), (2, 8)))
        late = rig.add([3] * 9, SamplingParams(max_tokens=2))
        assert short
        assert long
        assert late
        rig.step()
        assert late.status.value == "waiting"
        while not short.is_finished:
            rig.step()
        rig.step()
        assert late.status.value == "running"
        assert not long.is_finished
        rig.drain()

    def test_the_executor_may_forget_whoever_is_gone(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60, swap_tokens=20), num_blocks=16)
        sequences = [rig.add([index, 9, 9, 9, 9], SamplingParams(max_tokens=30)) for index in range(4)]
        for _ in range(5):
            rig.step()
        assert sequences[0]
        rig.abort(sequences[0])
        rig.drain()
        last = rig.add([7], SamplingParams(max_tokens=2))
        rig.drain()
        assert rig.executor.known == {last}

    @pytest.mark.parametrize("seed", range(80))
    def test_who_speculates_is_swapped_out_only_when_its_results_are_known(self, seed: int) -> None:
        random = Random(seed)
        patience, blocks = random.choice((0, 1000)), random.randint(8, 16)
        limits = SchedulerLimits(
            4, random.randint(6, 24), 60, watermark=0.0, max_draft_tokens=3, swap_tokens=1000, patience=patience
        )
        rig = self.rig(limits, num_blocks=blocks, lateness=1 + seed % 2)
        for _ in range(12):
            some_request(random, rig)
            for _ in range(random.randint(0, 3)):
                rig.step()
        rig.drain()

    def test_no_more_is_swapped_out_than_there_is_room_for(self) -> None:
        rig = self.rig(SchedulerLimits(6, 64, 60, swap_tokens=20), num_blocks=16)
        for index in range(6):
            rig.add([index, 9, 9, 9, 9], SamplingParams(max_tokens=30))
        rig.drain()
        stats = rig.scheduler.stats()
        assert 0 < stats.swaps < stats.preemptions
        assert 0 < rig.executor.max_saved <= 20

    def test_an_abort_gives_swap_space_back(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60, swap_tokens=1000), num_blocks=16)
        sequences = [rig.add([index, 9, 9, 9, 9], SamplingParams(max_tokens=30)) for index in range(4)]
        while not rig.scheduler.stats().swapped:
            rig.step()
        for sequence in sequences[1:]:
            assert sequence
            rig.abort(sequence)
        rig.drain()

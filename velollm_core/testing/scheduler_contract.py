"""What every scheduler must do, whoever hands it out."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.defaults import default_block_manager
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence, SequenceStatus
from velollm_core.errors import OutOfBlocks, VeloError
from velollm_core.testing.engine_machine import SEARCH, engine_machine
from velollm_core.testing.engine_rig import EngineRig
from velollm_core.testing.preemption_contract import PreemptionContract
from velollm_core.testing.scheduler_kit import BLOCK_BYTES, answer


class SchedulerContract(PreemptionContract):
    """Subclass it, and give ``make_scheduler`` the signature of the `schedule` hook."""

    def test_decodes_come_first_and_prompts_take_what_is_left(self) -> None:
        rig = self.rig(SchedulerLimits(4, 10, 100))
        rig.add([1, 2, 3], SamplingParams(max_tokens=9))
        rig.step()
        rig.add(list(range(25)), SamplingParams(max_tokens=2))
        sizes = []
        for _ in range(3):
            output = rig.scheduler.schedule()
            assert len(output.decodes) == 1
            sizes.append([len(chunk.token_ids) for chunk in output.chunks])
            rig.scheduler.update(output, answer(output))
        assert sizes == [[9], [9], [7]]

    def test_a_prompt_never_stops_those_that_decode(self) -> None:
        rig = self.rig(SchedulerLimits(4, 8, 400))
        running = rig.add([1, 2, 3], SamplingParams(max_tokens=60))
        assert running
        rig.step()
        rig.add(list(range(200)), SamplingParams(max_tokens=1))
        for expected in range(2, 20):
            rig.step()
            assert len(running.output_token_ids) == expected

    def test_refuses_at_once_what_can_never_run(self) -> None:
        rig = self.rig(SchedulerLimits(2, 64, 100), num_blocks=11)
        scheduler = rig.scheduler
        with pytest.raises(OutOfBlocks, match=r"90 prompt tokens and 11 to produce make 101, more than the 100"):
            scheduler.add(Sequence("long", [1] * 90, SamplingParams(max_tokens=11)))
        with pytest.raises(OutOfBlocks, match=r"has 10, which is 40 tokens"):
            scheduler.add(Sequence("big", [1] * 40, SamplingParams(max_tokens=2)))
        with pytest.raises(VeloError, match="at least one token"):
            scheduler.add(Sequence("empty", [], SamplingParams(max_tokens=2)))
        with pytest.raises(VeloError, match="at least one token"):
            scheduler.add(Sequence("nothing", [1], SamplingParams(max_tokens=0)))
        assert not scheduler.has_work
        assert rig.add([1] * 40, SamplingParams(max_tokens=1))
        rig.drain()

    def test_an_id_is_taken_once(self) -> None:
        scheduler = self.rig(SchedulerLimits(2, 64, 100)).scheduler
        scheduler.add(Sequence("a", [1], SamplingParams(max_tokens=2)))
        with pytest.raises(VeloError, match="own id"):
            scheduler.add(Sequence("a", [2], SamplingParams(max_tokens=2)))

    def test_first_come_first_served_and_priority_before(self) -> None:
        rig = self.rig(SchedulerLimits(1, 64, 100))
        order = {}
        for name, priority in (("first", 1), ("second", 1), ("urgent", 0)):
            order[rig.add([len(name)], SamplingParams(max_tokens=2), priority=priority)] = name
        ended = []
        while not rig.loop.is_idle:
            retired = rig.loop.step()
            ended += [order[sequence] for sequence in retired.ended] if retired else []
        assert ended == ["urgent", "first", "second"]

    def test_nobody_starves_behind_the_urgent(self) -> None:
        rig = self.rig(SchedulerLimits(1, 64, 100, patience=5))
        patient = rig.add([1], SamplingParams(max_tokens=1), priority=1)
        assert patient
        for count in range(20):
            rig.add([2, count], SamplingParams(max_tokens=1), priority=0)
            rig.step()
            if patient.is_finished:
                break
        assert 4 <= count <= 7
        rig.drain()

    def test_newcomers_leave_the_watermark_free(self) -> None:
        rig = self.rig(SchedulerLimits(3, 64, 60, watermark=0.5), num_blocks=11)
        first, second = (rig.add([index] * 12, SamplingParams(max_tokens=4)) for index in (1, 2))
        assert first
        assert second
        rig.step()
        assert second.status is SequenceStatus.WAITING
        rig.drain()

    @pytest.mark.parametrize("window", [None, 8])
    def test_an_abort_between_two_late_steps_commits_only_known_tokens(self, window: int | None) -> None:
        layout = KVCacheLayout((KVGroup(1, 4, window),), block_size=1)
        rig = EngineRig(default_block_manager, self.make_scheduler, layout, 400, SchedulerLimits(2, 64, 60), lateness=2)
        sequence = rig.add([1, 2], SamplingParams(max_tokens=30))
        assert sequence
        for _ in range(5):
            rig.step()
        rig.abort(sequence)
        rig.drain()

    def test_an_abort_keeps_blocks_until_the_step_in_flight_has_retired(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60))
        scheduler = rig.scheduler
        sequence = Sequence("a", [1, 2, 3], SamplingParams(max_tokens=9))
        scheduler.add(sequence)
        first = scheduler.schedule()
        ahead = scheduler.schedule()
        assert scheduler.abort("a")
        assert not scheduler.abort("a")
        assert sequence.status is SequenceStatus.ABORTED
        scheduler.update(first, answer(first))
        assert rig.blocks.usage().used == 1
        scheduler.update(ahead, answer(ahead))
        assert rig.blocks.usage().used == 0
        assert not sequence.output_token_ids
        assert not scheduler.has_work

    def test_a_stop_token_noticed_late_drops_what_was_computed_behind_it(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60))
        sequence = Sequence("a", [1, 2, 3], SamplingParams(max_tokens=9), frozenset({7}))
        rig.scheduler.add(sequence)
        steps = [rig.scheduler.schedule() for _ in range(3)]
        assert rig.scheduler.update(steps[0], answer(steps[0])) == [sequence]
        for step in steps[1:]:
            assert rig.scheduler.update(step, answer(step)) == []
        assert sequence.output_token_ids == [7]
        assert sequence.finish_reason == "stop"
        assert not rig.scheduler.has_work

    def test_steps_retire_in_order_with_one_row_each(self) -> None:
        rig = self.rig(SchedulerLimits(4, 64, 60))
        rig.scheduler.add(Sequence("a", [1], SamplingParams(max_tokens=9)))
        first, second = rig.scheduler.schedule(), rig.scheduler.schedule()
        with pytest.raises(ValueError, match="step 2"):
            rig.scheduler.update(second, answer(second))
        with pytest.raises(ValueError, match="1 rows"):
            rig.scheduler.update(first, StepResults([]))

    def test_drafts_are_verified_and_cost_budget(self) -> None:
        rig = self.rig(SchedulerLimits(2, 6, 100, max_draft_tokens=4))
        for index in range(2):
            rig.add([index, 1, 2], SamplingParams(max_tokens=40))
        rig.drain()
        assert rig.ended == 2
        assert rig.executor.max_tokens <= 6
        assert rig.steps < 2 * 40, "some drafts were accepted"

    def test_no_more_drafts_are_tried_than_may_be(self) -> None:
        rig = self.rig(SchedulerLimits(2, 16, 100, max_draft_tokens=3))
        scheduler = rig.scheduler
        scheduler.add(Sequence("a", [1, 2], SamplingParams(max_tokens=30)))
        first = scheduler.schedule()
        scheduler.update(first, StepResults([7], drafts={0: (7,) * 9}))
        (chunk,) = scheduler.schedule().chunks
        assert chunk.token_ids == (7,) * 4
        assert chunk.samples == 4

    def test_siblings_wait_for_the_prompt_of_their_parent_and_share_it(self) -> None:
        rig = self.rig(SchedulerLimits(4, 12, 100))
        parent = rig.add(list(range(30)), SamplingParams(max_tokens=5))
        assert parent
        children = [rig.fork(parent, seed) for seed in (1, 2)]
        for _ in range(4):
            rig.step()
        assert rig.blocks.usage().bytes_saved == 2 * 7 * BLOCK_BYTES
        assert [len(child.output_token_ids) for child in children if child] == [1, 1]
        rig.drain()

    def test_the_blocks_of_an_answer_can_be_hit_by_what_follows_it(self) -> None:
        rig = self.rig(SchedulerLimits(2, 64, 60))
        first = rig.add([1, 2, 3, 4, 5], SamplingParams(max_tokens=8))
        assert first
        rig.drain()
        following = rig.add([*first.token_ids, 6], SamplingParams(max_tokens=2))
        rig.drain()
        assert following
        assert following.num_cached == 12

    def test_drafts_do_not_go_beyond_the_end(self) -> None:
        rig = self.rig(SchedulerLimits(1, 8, 12, max_draft_tokens=4), num_blocks=4)
        rig.add([1, 2, 3], SamplingParams(max_tokens=9))
        rig.drain()
        assert rig.ended == 1

    def test_properties_hold_in_an_engine(self) -> None:
        run_state_machine_as_test(engine_machine(default_block_manager, self.make_scheduler), settings=SEARCH)

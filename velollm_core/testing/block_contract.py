"""What every block manager must do, whoever hands it out."""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from velollm_core.engine.defaults import default_scheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.errors import OutOfBlocks
from velollm_core.testing.block_kit import BLOCK, fill, sequence
from velollm_core.testing.engine_machine import SEARCH, engine_machine
from velollm_core.testing.sharing_contract import SharingContract


class BlockManagerContract(SharingContract):
    """Subclass it, and give ``make_blocks`` the signature of the `allocate_kv` hook."""

    def test_hands_out_all_blocks_but_the_null_block_once(self) -> None:
        blocks = self.blocks(6)
        seq = sequence("a", list(range(20)))
        assert blocks.num_free_blocks == 5
        assert blocks.allocate(seq, 20)
        assert sorted(seq.block_tables[0]) == [1, 2, 3, 4, 5]
        assert blocks.num_free_blocks == 0

    def test_a_refused_allocation_changes_nothing(self) -> None:
        blocks = self.blocks(4)
        seq = sequence("a", list(range(9)))
        assert blocks.allocate(seq, 5)
        before, usage = list(seq.block_tables[0]), blocks.usage()
        assert not blocks.allocate(seq, 13)
        assert seq.block_tables[0] == before
        assert blocks.usage() == usage
        assert blocks.room(seq) == 12

    def test_a_group_that_is_too_small_refuses_for_all(self) -> None:
        layout = KVCacheLayout((KVGroup(1, 4), KVGroup(1, 4, 6)), BLOCK, typical_tokens=400)
        blocks = self.make_blocks(layout, 150 * 16)
        seq = sequence("a", list(range(100)))
        usage = blocks.usage()
        assert not blocks.allocate(seq, 100)
        assert blocks.usage() == usage
        assert blocks.room(seq) < 100
        assert blocks.allocate(seq, blocks.room(seq))

    def test_what_was_matched_and_freed_is_not_told_to_the_executor(self) -> None:
        blocks = self.blocks(12)
        fill(blocks, sequence("a", list(range(9))))
        blocks.take_changes()
        refused = sequence("b", list(range(9)))
        assert blocks.match(refused) == 8
        blocks.free(refused)
        changes = blocks.take_changes()
        assert not changes.table_updates
        assert not changes.copies

    def test_what_is_freed_comes_back_whole(self) -> None:
        blocks = self.blocks(6)
        for name in "abc":
            seq = sequence(name, list(range(18)))
            fill(blocks, seq)
            blocks.free(seq)
            assert blocks.num_free_blocks == 5
            assert blocks.usage().used == 0

    def test_refuses_with_arithmetic_what_can_never_fit(self) -> None:
        blocks = self.blocks(6)
        blocks.check(20)
        with pytest.raises(OutOfBlocks, match=r"21 tokens.* 6 blocks of 4 tokens .*has 5"):
            blocks.check(21)

    def test_a_window_gives_back_what_left_it(self) -> None:
        blocks = self.blocks(8, window=6)
        seq = sequence("a", list(range(40)))
        for end in range(4, 41, 4):
            assert blocks.allocate(seq, end)
            seq.num_computed = end
            blocks.commit(seq, end)
        table = seq.block_tables[0]
        assert table[:8] == [0] * 8
        assert all(table[9:])
        assert blocks.usage().used <= 3
        blocks.check(10_000)

    def test_admission_keeps_a_reserve(self) -> None:
        blocks = self.blocks(11)
        seq = sequence("a", list(range(36)))
        assert blocks.admits(seq, 36, 0.0)
        assert blocks.admits(seq, 36, 0.1)
        assert not blocks.admits(seq, 36, 0.2)

    def test_usage_counts_what_is_used_wasted_and_hit(self) -> None:
        blocks = self.blocks(11)
        first = sequence("a", list(range(9)))
        fill(blocks, first)
        usage = blocks.usage()
        assert (usage.total, usage.used, usage.slots, usage.wasted_slots) == (10, 3, 12, 3)
        assert usage.utilisation == pytest.approx(0.3)
        assert usage.fragmentation == pytest.approx(0.25)
        assert usage.bytes_used == 3 * BLOCK * 8
        fill(blocks, sequence("b", list(range(9))))
        assert (blocks.usage().hit_tokens, blocks.usage().queried_tokens) == (8, 18)
        turned_away = sequence("c", list(range(9)))
        assert blocks.match(turned_away) == 8
        blocks.free(turned_away)
        assert (blocks.usage().hit_tokens, blocks.usage().queried_tokens) == (8, 18)

    def test_properties_hold_in_an_engine(self) -> None:
        run_state_machine_as_test(engine_machine(self.make_blocks, default_scheduler), settings=SEARCH)

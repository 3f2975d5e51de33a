"""What every block manager must do where sequences share blocks: prefixes that are cached, and forks."""

from __future__ import annotations

from velollm_core.testing.block_kit import BLOCK, BlocksUnderTest, fill, sequence


class SharingContract(BlocksUnderTest):
    """A part of `BlockManagerContract`."""

    def test_a_prefix_is_hit_once_its_step_has_retired_and_not_before(self) -> None:
        blocks = self.blocks(12)
        first, second, third = (sequence(name, list(range(10))) for name in "abc")
        blocks.match(first)
        blocks.allocate(first, 10)
        first.num_computed = 10
        assert blocks.match(second) == 0
        blocks.free(second)
        blocks.commit(first, 10)
        assert blocks.match(third) == 8
        assert third.block_tables[0] == first.block_tables[0][:2]
        assert blocks.usage().bytes_saved == 2 * BLOCK * 8

    def test_a_full_hit_leaves_the_last_token_to_compute(self) -> None:
        blocks = self.blocks(12)
        fill(blocks, sequence("a", list(range(8))))
        assert blocks.match(sequence("b", list(range(8)))) == 4

    def test_the_whole_prefix_counts_not_one_block(self) -> None:
        blocks = self.blocks(12)
        fill(blocks, sequence("a", [1, 2, 3, 4, 5, 6, 7, 8, 9]))
        assert blocks.match(sequence("b", [0, 2, 3, 4, 5, 6, 7, 8, 9])) == 0
        assert blocks.match(sequence("c", [1, 2, 3, 4, 5, 6, 7, 0, 9])) == 4

    def test_a_gap_ends_a_prefix(self) -> None:
        blocks = self.blocks(12)
        fill(blocks, sequence("a", [1, 1, 1, 1, 3, 3, 3, 3, 9]))
        assert blocks.match(sequence("b", [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 9])) == 4

    def test_a_salt_or_a_refusal_keeps_caches_apart(self) -> None:
        blocks = self.blocks(16)
        prompt = list(range(9))
        fill(blocks, sequence("a", prompt, salt="one"))
        assert blocks.match(sequence("b", prompt, salt="two")) == 0
        assert blocks.match(sequence("c", prompt, salt="one", use_cache=False)) == 0
        assert blocks.match(sequence("d", prompt, salt="one")) == 8

    def test_who_uses_no_cache_leaves_none(self) -> None:
        blocks = self.blocks(16)
        quiet = sequence("a", list(range(9)), use_cache=False)
        fill(blocks, quiet)
        blocks.free(quiet)
        assert blocks.usage().cached == 0
        assert blocks.match(sequence("b", list(range(9)))) == 0

    def test_freed_prefixes_live_until_their_blocks_are_needed_oldest_first(self) -> None:
        blocks = self.blocks(7)
        for name, start in (("old", 0), ("new", 100)):
            seq = sequence(name, list(range(start, start + 9)))
            fill(blocks, seq)
            blocks.free(seq)
        assert blocks.usage().cached == 4
        big = sequence("big", list(range(200, 212)))
        fill(blocks, big)
        blocks.free(big)
        assert blocks.match(sequence("again", list(range(100, 109)))) == 8
        assert blocks.match(sequence("gone", list(range(9)))) < 8

    def test_a_prefix_outlives_what_follows_it(self) -> None:
        blocks = self.blocks(7)
        seq = sequence("a", list(range(25)))
        assert blocks.allocate(seq, 24)
        seq.num_computed = 24
        blocks.commit(seq, 24)
        blocks.free(seq)
        assert blocks.allocate(sequence("b", [1]), 8)
        assert blocks.match(sequence("c", list(range(25)))) == 16

    def test_blocks_without_content_are_taken_before_cached_ones(self) -> None:
        blocks = self.blocks(7)
        cached, scratch = sequence("a", list(range(9))), sequence("b", list(range(50, 60)))
        fill(blocks, cached)
        blocks.free(cached)
        blocks.allocate(scratch, 12)
        blocks.free(scratch)
        assert blocks.allocate(sequence("c", [1]), 16)
        assert blocks.match(sequence("d", list(range(9)))) == 8
        assert blocks.usage().evictions == 0

    def test_a_fork_finds_no_block_to_copy_to(self) -> None:
        blocks = self.blocks(3)
        parent, child = sequence("a", list(range(6))), sequence("b", list(range(6)))
        fill(blocks, parent)
        assert blocks.fork(parent, child) == 5
        assert not blocks.allocate(child, 6)
        blocks.free(parent)
        assert blocks.allocate(child, 6)
        assert not blocks.take_changes().copies

    def test_a_fork_shares_and_copies_before_it_writes(self) -> None:
        blocks = self.blocks(12)
        parent, child = sequence("a", list(range(6))), sequence("b", list(range(6)))
        fill(blocks, parent)
        assert blocks.fork(parent, child) == child.num_computed == 5
        assert child.block_tables == parent.block_tables
        assert blocks.allocate(child, 6)
        (copy,) = blocks.take_changes().copies
        assert (copy.sequence, copy.index, copy.source) == (child, 1, parent.block_tables[0][1])
        assert child.block_tables[0] == [parent.block_tables[0][0], copy.target]
        assert blocks.allocate(parent, 7)
        assert not blocks.take_changes().copies, "the parent's block is its own again"
        blocks.free(parent)
        blocks.free(child)
        assert blocks.usage().used == 0

    def test_a_fork_shares_only_what_has_retired(self) -> None:
        blocks = self.blocks(12)
        parent, child = sequence("a", list(range(10))), sequence("b", list(range(10)))
        blocks.match(parent)
        blocks.allocate(parent, 10)
        blocks.commit(parent, 5)
        assert blocks.fork(parent, child) == 5

    def test_a_parent_that_begins_again_shares_what_it_has_again(self) -> None:
        blocks = self.blocks(16)
        for use_cache, kept in ((True, 8), (False, 0)):
            names = [f"{name}-{use_cache}" for name in ("parent", "child")]
            parent, child = (sequence(name, list(range(10)), use_cache=use_cache) for name in names)
            fill(blocks, parent)
            blocks.free(parent)
            assert blocks.match(parent) == kept
            assert blocks.fork(parent, child) == kept
            assert len(child.block_tables[0]) == kept // BLOCK

    def test_a_fork_that_goes_its_own_way_has_a_prefix_of_its_own(self) -> None:
        blocks = self.blocks(20)
        parent, child = sequence("a", list(range(6))), sequence("b", list(range(6)))
        fill(blocks, parent)
        parent.token_ids += [6, 7]
        fill(blocks, parent, match=False)
        assert blocks.fork(parent, child) == 5
        child.token_ids += [60, 61, 62, 63, 64, 65]
        fill(blocks, child, match=False)
        mixed = [*parent.token_ids, *child.token_ids[8:], 9]
        assert blocks.match(sequence("c", mixed)) <= 8
        assert blocks.match(sequence("d", [*child.token_ids, 9])) == 12

    def test_a_fork_that_is_given_up_leaves_no_copy_to_make(self) -> None:
        blocks = self.blocks(12)
        parent, child = sequence("a", list(range(6))), sequence("b", list(range(6)))
        fill(blocks, parent)
        blocks.fork(parent, child)
        assert blocks.allocate(child, 6)
        blocks.free(child)
        assert not blocks.take_changes().copies

    def test_a_fork_never_writes_into_a_block_that_may_be_hit(self) -> None:
        blocks = self.blocks(12)
        parent, child = sequence("a", list(range(6))), sequence("b", list(range(6)))
        fill(blocks, parent)
        blocks.fork(parent, child)
        parent.token_ids += [6, 7]
        parent.num_computed = 8
        blocks.commit(parent, 8)
        blocks.free(parent)
        blocks.allocate(child, 6)
        hit = blocks.match(late := sequence("c", [0, 1, 2, 3, 4, 5, 6, 7, 8]))
        assert hit == 4 or late.block_tables[0][1] not in child.block_tables[0]

    def test_a_window_is_hit_by_its_last_blocks_alone(self) -> None:
        blocks = self.blocks(60, second_window=6)
        seq = sequence("a", list(range(30)))
        fill(blocks, seq)
        blocks.free(seq)
        again = sequence("b", list(range(30)))
        assert blocks.match(again) == 28
        full, windowed = again.block_tables
        assert all(full)
        assert windowed[:5] == [0] * 5
        assert all(windowed[6:])

"""Plans of attention: whatever the lengths, every token is in exactly one piece and every query in exactly one tile."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="the kernels need Triton, which this platform has no wheel of")
pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="interpreted on a CPU; see test_attention_gpu.py")

from velollm_cuda.kernels.split import SplitPlan  # noqa: E402
from velollm_cuda.kernels.tiles import TilePlan  # noqa: E402

CPU = torch.device("cpu")
LENGTHS = st.one_of(st.integers(0, 3), st.integers(0, 70), st.integers(0, 5000), st.sampled_from([15, 16, 17, 131_072]))


def filled(lengths: list[int], window: int = 0, room: int = 0) -> tuple[SplitPlan, list[list[int]]]:
    """A plan with ``room`` for more sequences, and its items that hold work; block tables lie in reverse."""
    plan = SplitPlan.empty(len(lengths) + room, 2, 2, 64, CPU).shrunk(len(lengths))
    plan.items.fill_(-(2**30))
    rows = torch.arange(len(lengths) - 1, -1, -1, dtype=torch.int32)
    plan.fill(torch.tensor(lengths, dtype=torch.int32), rows, window)
    return plan, [item for item in plan.items.T.tolist() if item[0] >= 0]


def check(lengths: list[int], window: int = 0, room: int = 0) -> None:
    plan, items = filled(lengths, window, room)
    assert all(each == -1 for each in plan.items[0, len(items) :].tolist()), "the rest is marked empty"
    for row, length in enumerate(lengths):
        mine = [(index, item) for index, item in enumerate(items) if item[0] == row]
        first, pieces = mine[0][0], [item for _, item in mine]
        assert [index for index, _ in mine] == list(range(first, first + len(mine)))
        assert {(item[3], item[4], item[5]) for item in pieces} == {(first, len(mine), len(lengths) - 1 - row)}
        start = max(0, length - window) if window else 0
        assert pieces[0][1] == start
        assert pieces[-1][2] == length
        assert all(before[2] == after[1] for before, after in pairwise(pieces)), "no token twice, none left out"
        assert length == start or all(item[1] < item[2] for item in pieces), "no piece is empty"
        assert all((item[2] - item[1]) % plan.tile == 0 for item in pieces[:-1]), "only the last needs a mask"
    owners = [lengths[item[0]] for item in items]
    assert owners == sorted(owners, reverse=True), "the last to run are short"
    work = sum(min(length, window) if window else length for length in lengths)
    longest = max(item[2] - item[1] for item in items)
    assert longest <= max(plan.tile, -(-work // plan.fewest) + plan.tile), "the work is shared"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(LENGTHS, min_size=1, max_size=40), st.sampled_from([0, 0, 1, 16, 100, 4096]), st.integers(0, 40))
@example([0], 0, 0)
@example([1], 1, 0)
@example([131_072] + [1] * 30, 0, 0)
def test_every_token_is_in_exactly_one_piece(lengths: list[int], window: int, room: int) -> None:
    check(lengths, window, room)


@pytest.mark.parametrize("batch", [1, 2, 31, 32, 33, 64, 255, 256, 257, 512])
def test_a_plan_for_every_batch(batch: int) -> None:
    random = torch.Generator().manual_seed(batch)
    check(torch.randint(0, 3000, (batch,), generator=random).tolist())


def test_long_sequences_get_the_pieces_and_short_ones_one_each() -> None:
    _, items = filled([4000, 3, 3, 3])
    assert [item[4] for item in items if item[0] > 0] == [1, 1, 1]
    assert len(items) > 5


def test_one_room_serves_every_smaller_step() -> None:
    whole = SplitPlan.empty(64, 2, 2, 64, CPU)
    for batch in (64, 3, 17):
        plan = whole.shrunk(batch)
        plan.fill(torch.full((batch,), 40, dtype=torch.int32), torch.arange(batch, dtype=torch.int32))
        assert len(set(plan.items[0].tolist()) - {-1}) == batch
        assert plan.partial.data_ptr() == whole.partial.data_ptr()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 500)), min_size=1, max_size=8),
    st.sampled_from([1, 2, 3, 4, 7, 8, 16, 32]),
)
def test_every_query_is_in_exactly_one_tile(pairs: list[tuple[int, int]], group: int) -> None:
    chunks = [chunk for chunk, _ in pairs]
    lengths = [chunk + context for chunk, context in pairs]
    tables = [10 + 3 * index for index in range(len(pairs))]
    plan = TilePlan.of(chunks, lengths, tables, group, 2, 64, CPU)
    step = plan.rows // group
    assert step >= 1
    seen = [(row, first + query) for row, first, _ in plan.tiles.tolist() for query in range(step)]
    wanted = [(row, query) for row, chunk in enumerate(chunks) for query in range(chunk)]
    assert sorted(each for each in seen if each[1] < chunks[each[0]]) == wanted
    assert all(table == tables[row] for row, _, table in plan.tiles.tolist())
    assert plan.lengths.tolist() == lengths
    assert [after - before for before, after in pairwise(plan.starts.tolist())] == chunks
    ends = [min(lengths[row], lengths[row] - chunks[row] + first + step) for row, first, _ in plan.tiles.tolist()]
    assert ends == sorted(ends, reverse=True), "those with most keys come first"

"""The slot table: rows given and taken back, blocks written where they belong."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_cuda.state import MAX_STOP_IDS, SlotTable
from velollm_cuda.tally import Tally
from velollm_cuda.transfer import Returning, to_device

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.output import TableUpdate
from velollm_core.engine.sequence import Sequence

CPU = torch.device("cpu")
LAYOUT = KVCacheLayout((KVGroup(1, 8), KVGroup(1, 8, 32)), 16, 128)


def table(places: int = 3) -> SlotTable:
    return SlotTable(places, CPU, LAYOUT, 100, 50)


def sequence(name: str, **params: object) -> Sequence:
    return Sequence(name, [1, 2, 3], SamplingParams(**params))  # type: ignore[arg-type]


def test_parameters_lie_in_their_rows() -> None:
    state = table()
    params = {"temperature": 0.5, "top_p": 0.25, "min_p": 0.125, "top_k": 7, "seed": 9, "repetition_penalty": 1.5}
    plain, asking = sequence("plain", seed=1), sequence("asking", **params, frequency_penalty=0.5, presence_penalty=2.0)
    state.enter([plain, asking])
    row = state.row(asking)
    found = (state.temperature[row], state.top_p[row], state.min_p[row], state.top_k[row], state.seeds[row])
    assert [float(each) for each in found] == [0.5, 0.25, 0.125, 7, 9]
    assert state.penalties[:, row].tolist() == [1.5, 0.5, 2.0]
    assert state.penalties[:, state.row(plain)].tolist() == [1.0, 0.0, 0.0]
    assert int(state.seeds[state.row(plain)]) == 1


def test_who_is_there_already_keeps_its_row_and_state() -> None:
    state, one = table(), sequence("one")
    state.enter([one])
    row = state.row(one)
    state.lengths[row] = 17
    state.enter([one, sequence("two"), one])
    assert state.row(one) == row
    assert int(state.lengths[row]) == 17


def test_strangers_may_leave() -> None:
    state = table()
    state.leave([sequence("never came")])
    assert len(state._free) == state.nobody


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 11)), max_size=60))
def test_no_row_belongs_to_two_and_none_is_lost(events: list[tuple[bool, int]]) -> None:
    state = SlotTable(6, CPU, LAYOUT, 100, 50)
    everybody = [sequence(str(index), temperature=index / 10) for index in range(12)]
    there: set[int] = set()
    for enters, index in events:
        if enters:
            state.enter([everybody[index]])
            there.add(index)
        else:
            state.leave([everybody[index]])
            there.discard(index)
        rows = {index: state.row(everybody[index]) for index in there}
        assert len(set(rows.values())) == len(there)
        assert state.nobody not in rows.values()
        assert len(state._free) == state.nobody - len(there)
        assert all(abs(float(state.temperature[row]) - index / 10) < 1e-6 for index, row in rows.items())
    assert not state.tables[0].any()


def test_blocks_lie_where_the_scheduler_put_them() -> None:
    state, one, two = table(), sequence("one"), sequence("two")
    state.enter([one, two])
    state.set_blocks([TableUpdate(one, 0, 0, (5, 6)), TableUpdate(two, 1, 3, (9,)), TableUpdate(one, 0, 2, (7,))])
    assert state.tables[0][state.row(one), :4].tolist() == [5, 6, 7, 0]
    assert state.tables[1][state.row(two), :4].tolist() == [0, 0, 0, 9]
    assert state.tables[0].sum() == 18
    assert state.tables[1].sum() == 9
    assert not state.tables[0][state.nobody].any()


def test_more_stop_tokens_than_there_is_room_for() -> None:
    state = table()
    many = Sequence("many", [1], SamplingParams(min_tokens=4), frozenset(range(40)))
    few = Sequence("few", [1], SamplingParams(min_tokens=4), frozenset({8, 5}))
    state.enter([many, few])
    assert state.stop_ids[state.row(many)].tolist() == list(range(MAX_STOP_IDS))
    assert state.stop_ids[state.row(few)].tolist() == [5, 8] + [5] * (MAX_STOP_IDS - 2)


def test_who_has_no_end_is_not_kept_from_one() -> None:
    """The row's last owner had; looked at together with the rows of others, it would forbid this one its tokens."""
    state = table(1)
    ending = Sequence("ending", [1], SamplingParams(min_tokens=4), frozenset({8}))
    endless = Sequence("endless", [1], SamplingParams(min_tokens=4, ignore_eos=True))
    elsewhere = Sequence("elsewhere", [1], SamplingParams(min_tokens=4), frozenset({50, 51}))
    for other in (endless, elsewhere):
        state.enter([ending])
        assert int(state.first_stop[state.row(ending)]) == 4
        assert state.asks.delayed
        state.leave([ending])
        state.enter([other])
        assert int(state.first_stop[state.row(other)]) == 0
        assert not state.asks.delayed
        state.leave([other])


def test_a_tally_takes_memory_when_it_is_needed() -> None:
    state = table()
    state.enter([sequence("plain")])
    assert state.tally._cells is None
    state.enter([sequence("penalized", presence_penalty=1.0)])
    assert state.tally.cells.shape == (state.nobody + 1, 50)


def test_a_tally_begins_anew_with_each_sequence() -> None:
    tally = Tally(2, 5, CPU)
    tally.count(torch.tensor([0, 0, 1]), torch.tensor([4, 4, 2]))
    tally.enter(0, Sequence("a", [1, 1, 3], SamplingParams()))
    assert tally.cells.tolist() == [[0, 1, 0, 1, 0], [0, 0, 2, 0, 0]]


def test_values_come_back_as_they_were_when_asked_for() -> None:
    values = to_device([3, 1, 2], torch.int64, CPU)
    returning = Returning[int].of(values)
    values.zero_()
    assert returning.wait() == [3, 1, 2]
    assert returning.wait() == [3, 1, 2]

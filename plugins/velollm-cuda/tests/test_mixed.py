"""Steps padded to the sizes of graphs do what steps of their own sizes do; here the padding is run in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from velollm_cuda import runner
from velollm_cuda.asks import NOTHING, Asks
from velollm_cuda.mixed import CHUNKS, DECODES, TOKENS, MixedShape, MixedStep, numbers
from velollm_cuda.products import Products
from velollm_cuda.runner import RARE

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.output import ScheduledChunk
from velollm_core.engine.sequence import Sequence

CPU = torch.device("cpu")


@define(eq=False)
class PretendedGraphs:
    """Remembers bodies instead of launches: a replay runs one on the integers that a graph would have read."""

    bodies: dict[Any, Callable[[Tensor], Tensor]] = field(factory=dict)
    replays: int = 0

    def __contains__(self, key: Any) -> bool:
        return key in self.bodies

    def capture(self, key: Any, idle: list[int], body: Callable[[Tensor], Tensor]) -> None:
        self.bodies[key] = body
        body(torch.tensor(idle))

    def replay(self, key: Any, values: list[int]) -> Tensor:
        self.replays += 1
        return self.bodies[key](torch.tensor(values))


def padded(engine: Any) -> PretendedGraphs:
    """Make a CPU's engine believe that it has graphs."""
    graphs = PretendedGraphs()
    engine.runner.eager, engine.runner._graphs = False, graphs
    engine.runner._products = Products(engine.runner.model.kernels.linear, {})
    return graphs


@pytest.mark.parametrize("family", ["llama", "gemma"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_batched_tokens": 24},
        {"max_num_seqs": 3},
        {"tokens": 900, "max_num_seqs": 16},
        {"max_num_seqs": 40},
    ],
    ids=str,
)
def test_padding_changes_no_token(
    tiny: Any, family: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, roomy = tiny.engine(family, **options), tiny.engine(family, **options)
    graphs = padded(roomy)
    monkeypatch.setattr(runner, "RARE", 0)
    assert tiny.run(roomy, tiny.sequences(40, seed=3)) == tiny.run(plain, tiny.sequences(40, seed=3))
    assert graphs.replays > 20
    assert any(isinstance(shape, MixedShape) for shape, _ in graphs.bodies)


@pytest.mark.parametrize(
    "wishes",
    [
        {"temperature": 0.8, "top_k": 5},
        {"repetition_penalty": 1.4, "frequency_penalty": 0.6},
        {"logprobs": True, "top_logprobs": 3},
        {"min_tokens": 4},
    ],
    ids=str,
)
def test_wishes_are_heard_in_padded_steps(tiny: Any, wishes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, roomy = tiny.engine(), tiny.engine()
    padded(roomy)
    monkeypatch.setattr(runner, "RARE", 0)
    mine, others = tiny.sequences(20, seed=5, **wishes), tiny.sequences(20, seed=5, **wishes)
    assert tiny.run(roomy, mine) == tiny.run(plain, others)
    for one, other in zip(mine, others, strict=True):
        assert [[token for token, _ in each] for each in one.alternatives] == [
            [token for token, _ in each] for each in other.alternatives
        ]
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_nobody_is_touched_by_a_capture(tiny: Any) -> None:
    engine = tiny.engine("gemma", max_num_seqs=20)
    padded(engine)
    before = [each.clone() for pair in engine.runner.cache for each in pair]
    engine.runner.warm_up(600)
    assert all(
        torch.equal(a, b) for a, b in zip(before, (x for pair in engine.runner.cache for x in pair), strict=True)
    )
    assert not engine.runner.state.lengths.any()
    shapes = [shape for shape, _ in engine.runner._graphs.bodies if isinstance(shape, MixedShape)]
    assert {shape.tokens for shape in shapes} == {128, 256, 384, 512, 640}
    assert {shape.decodes for shape in shapes} == {0, 4, 16, 64}
    bodies = set(engine.runner._graphs.bodies)
    assert tiny.run(engine, tiny.sequences(60, seed=2)) == tiny.run(
        tiny.engine("gemma", max_num_seqs=20), tiny.sequences(60, seed=2)
    )
    assert set(engine.runner._graphs.bodies) == bodies, "a warm engine captures nothing more"


def test_the_usual_way_of_sampling_is_warm_as_well(tiny: Any) -> None:
    engine, wishes = tiny.engine(max_num_seqs=20), {"temperature": 0.6, "top_p": 0.9}
    graphs = padded(engine)
    engine.runner.warm_up(600, Asks.of(SamplingParams(**wishes)))
    assert {asks for _, asks in graphs.bodies} == {NOTHING, Asks(restricted=True)}
    bodies = set(graphs.bodies)
    tiny.run(engine, tiny.sequences(30, seed=4, **wishes))
    tiny.run(engine, tiny.sequences(30, seed=5))
    assert set(graphs.bodies) == bodies


def test_a_shape_that_comes_seldom_is_run_as_it_is(tiny: Any) -> None:
    engine = tiny.engine()
    graphs = padded(engine)
    for count in range(RARE):
        tiny.run(engine, [Sequence(f"a{count}", [1, 2, 3], SamplingParams(max_tokens=1))])
    assert not graphs.bodies
    for count in range(3):
        tiny.run(engine, [Sequence(f"b{count}", [1, 2, 3], SamplingParams(max_tokens=1))])
    assert (len(graphs.bodies), graphs.replays) == (1, 3)


def chunk(name: str, start: int, count: int, samples: int) -> ScheduledChunk:
    tokens = [(start + at) % 50 for at in range(start + count)]
    return ScheduledChunk(Sequence(name, tokens), start, tuple(tokens[start:]), samples)


chunks = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 50), st.integers(0, 1)), min_size=1, max_size=CHUNKS - 1
)  # fmt: skip


@settings(max_examples=80)
@given(st.integers(0, 30), chunks)
def test_the_same_step_at_both_sizes(tiny: Any, decodes: int, wanted: list[tuple[int, int, int]]) -> None:
    engine = tiny.engine(max_num_seqs=64)
    state, config = engine.runner.state, engine.runner.model.config
    parts = [chunk(str(index), *each) for index, each in enumerate(wanted)]
    state.enter(part.sequence for part in parts)
    rows, count = list(range(decodes)), sum(len(part.token_ids) for part in parts)
    flat, shape = numbers(rows, parts, state, config, None)
    own = MixedStep.of(torch.tensor(flat), shape)
    room = MixedShape.roomy(decodes, count, len(parts), config, CPU)
    if room is None:
        assert count > TOKENS[-1]
        return
    assert room.decodes >= decodes
    assert room.tokens >= count
    flat, _ = numbers(rows, parts, state, config, room)
    assert len(flat) == sum(room.parts)
    roomy = MixedStep.of(torch.tensor(flat), room)
    assert own.positions.tolist() == [
        at for part in parts for at in range(part.start, part.start + len(part.token_ids))
    ]
    assert own.real.all()
    for name in ("tokens", "positions", "token_rows", "real"):
        assert torch.equal(getattr(roomy, name)[:count], getattr(own, name)), name
    assert not roomy.real[count:].any()
    assert (roomy.token_rows[count:] == state.nobody).all()
    assert torch.equal(roomy.rows[:decodes], own.rows)
    assert (roomy.rows[decodes:] == state.nobody).all()
    samples = len(own.sampled)
    assert torch.equal(roomy.sampled_rows[:samples], own.sampled_rows)
    assert (roomy.sampled_rows[samples:] == state.nobody).all()
    shift = (own.sampled >= decodes) * (room.decodes - decodes)
    assert torch.equal(roomy.sampled[:samples], own.sampled + shift)
    real = roomy.tiles.tiles[:, 0] >= 0
    assert torch.equal(roomy.tiles.tiles[real], own.tiles.tiles)
    table = torch.arange(1000 * (state.nobody + 1)).view(state.nobody + 1, 1000)
    assert (roomy.slots(table, 4)[count:] == -1).all()
    assert torch.equal(roomy.slots(table, 4)[:count], own.slots(table, 4))


def test_what_is_too_large_for_the_ladder(tiny: Any) -> None:
    config = tiny.engine().runner.model.config
    assert MixedShape.roomy(DECODES[-1], TOKENS[-1], CHUNKS - 1, config, CPU)
    assert MixedShape.roomy(DECODES[-1] + 1, 1, 1, config, CPU) is None
    assert MixedShape.roomy(1, TOKENS[-1] + 1, 1, config, CPU) is None
    assert MixedShape.roomy(1, 64, CHUNKS, config, CPU) is None

"""The engine on the real library and the small test model: answers are those of each request alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import evolve
from velollm_llamacpp.engine.engine import Engine, open_engine
from velollm_llamacpp.engine.options import EngineOptions

from velollm_core.backends.request import Message, SamplingParams
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import OutOfBlocks

DOUBT = 0.04
"""Batches of other shapes round otherwise: below this lead over the second token, either is right."""

SMALL = EngineOptions(total_context=1024, parallel=4, threads=1, margins=True)
STEM = [40 + 7 * index % 80 for index in range(600)]


@pytest.fixture(scope="module")
def engine(model: Path, library: Path) -> Iterator[Engine]:
    with open_engine(model, evolve(SMALL, total_context=2048)) as opened:
        yield opened


@pytest.fixture(scope="module")
def tight(model: Path, library: Path) -> Iterator[Engine]:
    """512 cells, and memory to swap to."""
    with open_engine(model, evolve(SMALL, total_context=512, swap_bytes=2**24)) as opened:
        yield opened


@pytest.fixture(scope="module")
def alone(model: Path, library: Path) -> Iterator[Engine]:
    """One request at a time, nothing shared: what the others are compared with."""
    with open_engine(model, evolve(SMALL, total_context=2048, parallel=1, prefix_cache=False)) as opened:
        yield opened


def request(name: str, prompt: list[int], count: int = 24, **fields: object) -> Sequence:
    return Sequence(name, list(prompt), SamplingParams(max_tokens=count), **fields)  # type: ignore[arg-type]


def run(engine: Engine, *waves: list[Sequence], every: int = 3) -> None:
    """Add a wave every few steps, then run to the end; no block may be left."""
    for wave in waves:
        for sequence in wave:
            engine.loop.scheduler.add(sequence)
        for _ in range(every):
            engine.loop.step()
    for _ in engine.loop.run():
        pass
    usage = engine.blocks.usage()
    assert usage.used == 0
    assert usage.bytes_saved == 0
    assert engine.executor.full_caches == 0


def check(engine: Engine, alone: Engine, sequences: list[Sequence]) -> None:
    """Tokens equal, up to the first place where the model alone was in doubt."""
    for sequence in sequences:
        reference = request(f"alone-{sequence.id}", sequence.token_ids[: sequence.num_prompt_tokens])
        reference.sampling = evolve(sequence.sampling)
        reference.max_length = sequence.max_length
        reference.use_cache = False
        run(alone, [reference])
        margins = alone.executor.margins[reference]
        pairs = zip(sequence.output_token_ids, reference.output_token_ids, margins, strict=True)
        wrong = next(((place, lead) for place, (mine, its, lead) in enumerate(pairs) if mine != its), None)
        assert wrong is None or wrong[1] <= DOUBT, f"{sequence.id}: another token at {wrong}"


def test_staggered_joins(engine: Engine, alone: Engine) -> None:
    waves = [
        [request(f"join-{wave}-{each}", STEM[wave * 50 + each : wave * 50 + 90]) for each in (0, 1)]
        for wave in range(4)
    ]
    run(engine, *waves)
    check(engine, alone, [sequence for wave in waves for sequence in wave])


def test_a_shared_prefix_is_computed_once(engine: Engine, alone: Engine) -> None:
    first = request("stem", STEM)
    run(engine, [first])
    others = [request(f"stem-{each}", [*STEM, 50 + each, 60 + each]) for each in range(4)]
    recomputed = engine.executor.recomputed_tokens
    run(engine, others[:2], others[2:])
    assert [sequence.num_cached for sequence in others] == [592] * 4
    assert engine.executor.recomputed_tokens == recomputed
    check(engine, alone, [first, *others])


@pytest.mark.parametrize("heat", [0.0, 1.5])
def test_no_end_comes_before_its_time(engine: Engine, heat: float) -> None:
    """A token that would end the answer may once as many others are there as come before it, not before."""
    sampling = SamplingParams(max_tokens=12, temperature=heat, seed=3)
    free = Sequence(f"free-{heat}", [65, 66], sampling)
    run(engine, [free])
    answer = free.output_token_ids
    place = next(each for each in range(3, 12) if answer[each] not in answer[:each])
    ends = frozenset({answer[place], 10**6})
    in_time, early = (
        Sequence(f"{least}-{heat}", [65, 66], evolve(sampling, min_tokens=least), ends) for least in (place, place + 1)
    )
    run(engine, [in_time], [early])
    assert (in_time.output_token_ids, in_time.finish_reason) == (answer[: place + 1], "stop")
    assert early.output_token_ids[:place] == answer[:place]
    assert answer[place] not in early.output_token_ids[: place + 1]


def test_siblings_share_their_prompt(engine: Engine, alone: Engine) -> None:
    parent = request("parent", STEM[5:105])
    children = [request(f"child-{each}", STEM[5:105], parent=parent) for each in range(2)]
    run(engine, [parent, *children])
    assert parent.output_token_ids == children[0].output_token_ids == children[1].output_token_ids
    check(engine, alone, [parent])


@pytest.mark.parametrize("swap", [True, False])
def test_preempted_requests_go_on_as_if_nothing_had_been(tight: Engine, alone: Engine, model: Path, swap: bool) -> None:
    sequences = [request(f"tight-{swap}-{each}", STEM[100 * each : 100 * each + 100], 120) for each in range(4)]
    if swap:
        before = tight.loop.scheduler.stats()
        run(tight, sequences)
        after = tight.loop.scheduler.stats()
        assert after.swaps > before.swaps
    else:
        with open_engine(model, evolve(SMALL, total_context=512)) as engine:
            run(engine, sequences)
            assert engine.loop.scheduler.stats().preemptions > 0
            assert engine.loop.scheduler.stats().swaps == 0
    check(tight, alone, sequences)


def test_aborted_requests_leave_nothing(engine: Engine, alone: Engine) -> None:
    sequences = [request(f"abort-{each}", STEM[each * 20 : each * 20 + 70], 40) for each in range(10)]
    for number, sequence in enumerate(sequences):
        engine.loop.scheduler.add(sequence)
        engine.loop.step()
        if number % 3 == 2:
            assert engine.loop.scheduler.abort(sequences[number - 1].id)
    run(engine, [])
    stayed = [sequence for sequence in sequences if sequence.finish_reason != "abort"]
    assert len(stayed) == 7
    check(engine, alone, stayed)


def test_a_load_that_overcommits_llama_servers_pool_is_queued(model: Path, library: Path) -> None:
    """``llama-server -c 1024 -np 4 -kvu`` answers such four requests with 500, all of them."""
    with open_engine(model, SMALL) as engine:
        sequences = [request(f"pool-{each}", STEM[each : each + 400], 100) for each in range(4)]
        run(engine, sequences)
        assert [len(sequence.output_token_ids) for sequence in sequences] == [100] * 4
        with pytest.raises(OutOfBlocks, match="1100"):
            engine.loop.scheduler.add(request("never", STEM, 500))


def test_a_long_prompt_is_cut_into_steps(engine: Engine, alone: Engine) -> None:
    sequence = request("long", [*reversed(STEM), *STEM], 8)
    run(engine, [sequence])
    check(engine, alone, [sequence])


def test_draws_are_the_same_for_the_same_seed(engine: Engine) -> None:
    params = SamplingParams(max_tokens=30, temperature=1.0, top_p=0.95, top_k=50, min_p=0.01, seed=7)
    drawn = []
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        sequence = request(f"draw-{name}", STEM[:20])
        sequence.sampling = evolve(params, seed=seed)
        sequence.max_length = 50
        run(engine, [sequence])
        drawn.append(sequence.output_token_ids)
    assert drawn[0] == drawn[1] != drawn[2]


def test_text_goes_through_the_models_own_tokenizer(engine: Engine) -> None:
    text = engine.text
    assert text.decode(text.encode("the cat — café")) == "the cat — café"
    reader = text.detokenizer()
    pieces = [reader.feed([token]) for token in text.encode("é!")]
    assert "".join(pieces) + reader.finish() == "é!"
    assert "\ufffd" not in "".join(pieces)
    chat = text.chat([Message("user", "hi")])
    assert chat[0] == max(text.stop_ids) - 1
    assert text.stop_ids
    assert engine.cache_bytes == 2048 * engine.blocks.layout.bytes_per_token == 2048 * 2 * 4 * 128 * 2

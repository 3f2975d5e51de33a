"""The engine's promises on a CPU: an answer is the model's own, whatever happens around it, and no block is lost."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence, SequenceStatus
from velollm_core.errors import OutOfBlocks, VeloError

CLOSE = 1e-3
STEM = [7 * index % 60 for index in range(40)]


class Late:
    """An executor whose answers are taken ``depth - 1`` steps late; it runs each step at once."""

    def __init__(self, executor: Any, depth: int) -> None:
        self.depth = depth
        self._executor = executor
        self._results: deque[StepResults] = deque()

    def launch(self, output: SchedulerOutput) -> None:
        self._executor.launch(output)
        self._results.append(self._executor.collect())

    def collect(self) -> StepResults:
        return self._results.popleft()

    def close(self) -> None:
        self._executor.close()


def late(engine: Any, depth: int) -> EngineLoop:
    return EngineLoop(engine.loop.scheduler, Late(engine.loop.executor, depth))


def run(engine: Any, sequences: list[Sequence], depth: int = 1) -> list[list[int]]:
    """Run ``sequences`` to their ends; what each of them says."""
    loop = late(engine, depth)
    for sequence in sequences:
        loop.scheduler.add(sequence)
    for _ in loop.run():
        pass
    settled(engine)
    return [sequence.output_token_ids for sequence in sequences]


def settled(engine: Any) -> None:
    """Nothing is left behind: no block, no row, no wish."""
    usage, state = engine.blocks.usage(), engine.runner.state
    assert usage.used == 0, f"{usage.used} blocks leaked"
    assert usage.bytes_saved == 0
    assert not engine.loop.scheduler.has_work
    # The last to end are forgotten with the next step: give one.
    engine.loop.scheduler.add(Sequence("last", [1], SamplingParams(max_tokens=1)))
    for _ in engine.loop.run():
        pass
    assert len(state._free) == state.nobody - 1
    assert len(state._asking) == 0


def sequences(count: int, *, seed: int = 0, longest: int = 40, **params: Any) -> list[Sequence]:
    """Prompts with a common stem."""
    random, found = Random(seed), []
    for index in range(count):
        prompt = STEM[: random.randint(0, longest)] + random.choices(range(60), k=random.randint(1, 6))
        sampling = SamplingParams(**{"max_tokens": random.randint(1, 30), **params, "seed": index})
        found.append(Sequence(f"s{index}", prompt, sampling))
    return found


@pytest.fixture(scope="module", params=["llama", "gemma"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_greedy_answer_is_the_models_own(tiny: Any, oracle: Any, family: str) -> None:
    engine, mine = tiny.engine(family, tokens=3000), sequences(12)
    run(engine, mine)
    judge = oracle(*tiny.model(family))
    assert max(map(judge.shortfall, mine)) < CLOSE
    assert all(len(each.output_token_ids) == each.sampling.max_tokens for each in mine)
    assert len({token for each in mine for token in each.output_token_ids}) > 20, "a model that says much"


def test_the_judge_notices_one_wrong_token(tiny: Any, oracle: Any, family: str) -> None:
    engine, mine = tiny.engine(family, tokens=3000), sequences(3, max_tokens=10)
    run(engine, mine)
    mine[1].token_ids[-4] = (mine[1].token_ids[-4] + 1) % 60
    assert oracle(*tiny.model(family)).shortfall(mine[1]) > 100 * CLOSE


TIGHT = -1
ROOM = {"llama": 220, "gemma": 700}
CIRCUMSTANCES = {
    "one prompt token a step": {"max_num_batched_tokens": 8},
    "chunks of nine": {"max_num_batched_tokens": 9},
    "one at a time": {"max_num_seqs": 1},
    "two at a time": {"max_num_seqs": 2, "max_num_batched_tokens": 5},
    "blocks of one": {"block_size": 1},
    "blocks of sixteen": {"block_size": 16},
    "a cache too small for all": {"tokens": TIGHT},
    "one step behind": {"depth": 2},
    "one step behind and no room": {"depth": 2, "tokens": TIGHT},
}


@pytest.mark.parametrize("circumstance", CIRCUMSTANCES.values(), ids=CIRCUMSTANCES)
def test_answers_do_not_depend_on_circumstances(
    tiny: Any, oracle: Any, family: str, circumstance: dict[str, int]
) -> None:
    options = {"tokens": 3000, **circumstance}
    depth, tight = options.pop("depth", 1), options["tokens"] == TIGHT
    engine, mine = tiny.engine(family, **options | ({"tokens": ROOM[family]} if tight else {})), sequences(10)
    run(engine, mine, depth)
    judge = oracle(*tiny.model(family))
    assert max(map(judge.shortfall, mine)) < CLOSE
    preempted = engine.loop.scheduler.stats().preemptions > 0
    assert preempted == (tight and family == "llama"), "gemma's sequences wait for a window instead"


def test_order_does_not_matter(tiny: Any, family: str) -> None:
    forward, backward = sequences(8), sequences(8)
    said = run(tiny.engine(family, tokens=3000), forward)
    assert run(tiny.engine(family, tokens=3000), backward[::-1]) == said[::-1]


def test_prefixes_are_shared_and_change_nothing(tiny: Any, family: str) -> None:
    engine = tiny.engine(family, tokens=3000)
    prompt = [*STEM, 3, 1, 4]
    params = SamplingParams(max_tokens=20)
    first, again = Sequence("first", list(prompt), params), Sequence("again", list(prompt), params)
    alone = Sequence("alone", list(prompt), params, use_cache=False)
    said = [run(engine, [each])[0] for each in (first, again, alone)]
    assert said[0] == said[1] == said[2]
    assert (first.num_cached, alone.num_cached) == (0, 0)
    assert again.num_cached == 40


def test_siblings_share_their_prompt_and_draw_their_own(tiny: Any, family: str) -> None:
    """What ``n`` answers to a prompt are made of: copies on write, and draws that a sequence alone would have made."""
    params = SamplingParams(max_tokens=16, temperature=1.0, seed=5)
    prompt = STEM[:18]

    def family_of(count: int) -> list[Sequence]:
        parent = Sequence("0", list(prompt), params)
        rest = [Sequence(str(i), list(prompt), evolve(params, seed=5 + i), parent=parent) for i in range(1, count)]
        return [parent, *rest]

    said = run(tiny.engine(family, tokens=3000), family_of(5), depth=2)
    assert len(set(map(tuple, said))) == 5
    for index, answer in enumerate(said):
        lonely = Sequence("x", list(prompt), evolve(params, seed=5 + index))
        assert run(tiny.engine(family, tokens=3000), [lonely]) == [answer]


def test_seeds_reproduce_at_equal_batch_shape(tiny: Any, family: str) -> None:
    def said() -> list[list[int]]:
        return run(tiny.engine(family, tokens=3000), sequences(6, temperature=0.9, top_p=0.8, max_tokens=12))

    assert said() == said()


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), family=st.sampled_from(["llama", "gemma"]))
def test_any_course_of_events(tiny: Any, oracle: Any, seed: int, family: str) -> None:
    """Requests, siblings and aborts at random, in an engine that is tight somewhere and may be one step behind."""
    random = Random(seed)
    places = random.randint(1, 6)
    engine = tiny.engine(
        family,
        tokens=random.choice([400, 900, 3000]),
        block_size=random.choice([2, 4, 8]),
        max_num_seqs=places,
        max_num_batched_tokens=places + random.choice([0, 3, 30]),
    )
    loop, judge = late(engine, random.randint(1, 2)), oracle(*tiny.model(family))
    mine: list[Sequence] = []
    for sequence in sequences(14, seed=seed):
        if mine and random.random() < 0.3:
            parent = random.choice(mine)
            prompt = parent.token_ids[: parent.num_prompt_tokens]
            sequence = Sequence(sequence.id, prompt, sequence.sampling, parent=parent)
        mine.append(sequence)
        loop.scheduler.add(sequence)
        for _ in range(random.choice([0, 0, 1, 5])):
            loop.step()
        if random.random() < 0.3:
            loop.scheduler.abort(random.choice(mine).id)
    for _ in loop.run():
        pass
    settled(engine)
    for sequence in mine:
        assert sequence.is_finished
        whole = len(sequence.output_token_ids) == sequence.sampling.max_tokens
        assert whole or sequence.status is SequenceStatus.ABORTED
        assert not sequence.output_token_ids or judge.shortfall(sequence) < CLOSE


def test_a_thousand_requests_with_many_aborts_leak_no_block(tiny: Any) -> None:
    random = Random(2)
    engine = tiny.engine("llama", tokens=1200, block_size=8, max_num_seqs=64)
    loop = late(engine, 2)
    waiting = deque(sequences(1000, longest=20, max_tokens=6))
    doomed = set(random.sample([each.id for each in waiting], 300))
    live: list[Sequence] = []
    aborted = 0
    while waiting or not loop.is_idle:
        for _ in range(min(len(waiting), random.randint(0, 40))):
            live.append(waiting.popleft())
            loop.scheduler.add(live[-1])
        loop.step()
        for sequence in [each for each in live if each.id in doomed and random.random() < 0.4]:
            aborted += loop.scheduler.abort(sequence.id)
            live.remove(sequence)
    assert aborted > 200
    settled(engine)


def test_what_can_never_fit_is_refused_at_once(tiny: Any) -> None:
    engine = tiny.engine("llama", tokens=64)
    assert engine.limits.max_model_len == 60
    with pytest.raises(OutOfBlocks, match="50 prompt tokens and 11 to produce make 61, more than the 60"):
        engine.loop.scheduler.add(Sequence("a", [1] * 50, SamplingParams(max_tokens=11)))
    with pytest.raises(VeloError, match="at least one token"):
        engine.loop.scheduler.add(Sequence("b", [], SamplingParams()))
    assert run(engine, [Sequence("c", [1] * 50, SamplingParams(max_tokens=10))])[0]


def test_a_failed_step_can_be_abandoned(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that fails takes the step with it, not the engine's books."""
    engine = tiny.engine("llama")

    def fall(*arguments: Any) -> None:
        raise RuntimeError("fell")

    monkeypatch.setattr(type(engine.runner.model), "forward", fall)
    sequence = Sequence("a", [1, 2], SamplingParams(max_tokens=4))
    engine.loop.scheduler.add(sequence)
    with pytest.raises(RuntimeError, match="fell"):
        engine.loop.step()
    engine.loop.scheduler.abort("a")
    assert sequence.status is SequenceStatus.ABORTED


def test_positions_reach_the_end_of_the_context(tiny: Any, oracle: Any, family: str) -> None:
    engine = tiny.engine(family, tokens=600)
    whole = engine.limits.max_model_len
    assert whole == 256
    sequence = Sequence("a", torch.randint(0, 60, (200,)).tolist(), SamplingParams(max_tokens=56))
    run(engine, [sequence])
    assert len(sequence.token_ids) == whole
    assert oracle(*tiny.model(family)).shortfall(sequence) < CLOSE

"""The engine on a GPU: graphs, steps in flight and kernels together say what the model says in fp32 on a CPU."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
import torch

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.sequence import Sequence

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

# Half precision moves logits; a wrong cache or a wrong token moves them by their whole spread.
CLOSE = 0.25
ON_GPU = {"device": "cuda", "dtype": "bfloat16"}


def worst(tiny: Any, oracle: Any, family: str, mine: list[Sequence]) -> float:
    """The worst choice of ``mine``, in units of the logits' spread."""
    judge = oracle(*tiny.model(family, **ON_GPU))
    spread = float(judge.logits(mine[0].token_ids).std())
    return max(map(judge.shortfall, mine)) / spread


@pytest.fixture(scope="module", params=["llama", "gemma"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"enforce_eager": True},
        {"max_num_batched_tokens": 24},
        {"max_num_seqs": 3},
        {"block_size": 64},
        {"max_num_seqs": 70},
    ],
    ids=str,
)
def test_answers_are_the_models_own(tiny: Any, oracle: Any, family: str, options: dict[str, Any]) -> None:
    engine, mine = tiny.engine(family, tokens=20_000, **ON_GPU, **options), tiny.sequences(40)
    tiny.run(engine, mine)
    assert worst(tiny, oracle, family, mine) < CLOSE
    assert all(len(each.output_token_ids) == each.sampling.max_tokens for each in mine)


def test_preemption_changes_nothing(tiny: Any, oracle: Any) -> None:
    engine, mine = tiny.engine("llama", tokens=400, max_num_seqs=16, **ON_GPU), tiny.sequences(30)
    tiny.run(engine, mine)
    assert engine.loop.scheduler.stats().preemptions > 0
    assert worst(tiny, oracle, "llama", mine) < CLOSE


def test_a_warm_engine_captures_nothing_more(tiny: Any, oracle: Any) -> None:
    engine, mine = tiny.engine("llama", tokens=20_000, max_num_seqs=20, **ON_GPU), tiny.sequences(20)
    engine.runner.warm_up(engine.limits.max_num_batched_tokens)
    captured = set(engine.runner._graphs._graphs)
    tiny.run(engine, mine)
    assert set(engine.runner._graphs._graphs) == captured
    assert worst(tiny, oracle, "llama", mine) < CLOSE


def test_wishes_beside_each_other(tiny: Any, oracle: Any) -> None:
    """Penalties, delayed ends and log probabilities, in graphs of their own."""
    engine = tiny.engine("llama", tokens=20_000, **ON_GPU)
    wishes = [{}, {"repetition_penalty": 1.5}, {"frequency_penalty": 0.9}, {"logprobs": True}, {"min_tokens": 12}]
    mine = []
    for index in range(15):
        params = SamplingParams(max_tokens=30, **wishes[index % 5])
        mine.append(Sequence(str(index), [index, 2 * index, 5], params, frozenset({3, 17, 44})))
    tiny.run(engine, mine)
    assert worst(tiny, oracle, "llama", mine) < CLOSE
    judge = oracle(*tiny.model("llama", **ON_GPU))
    for sequence in mine:
        assert not set(sequence.output_token_ids[:-1]) & sequence.stop_ids
        if sequence.sampling.logprobs:
            assert torch.allclose(torch.tensor(sequence.logprobs), judge.logprobs(sequence), atol=0.3)


def test_draws_reproduce_and_keep_to_their_rules(tiny: Any, oracle: Any) -> None:
    def said(**rules: Any) -> list[Sequence]:
        mine = tiny.sequences(12, temperature=1.0, max_tokens=20, **rules)
        tiny.run(tiny.engine("llama", tokens=20_000, **ON_GPU), mine)
        return mine

    one, same = said(top_k=1), said(top_k=1)
    assert worst(tiny, oracle, "llama", _greedy(one)) < CLOSE, "of one token there is nothing to draw"
    assert [each.token_ids for each in one] == [each.token_ids for each in same]
    free = said(top_k=3)
    assert [each.token_ids for each in free] == [each.token_ids for each in said(top_k=3)]
    assert [each.token_ids for each in free] != [each.token_ids for each in one]
    judge = oracle(*tiny.model("llama", **ON_GPU))
    for sequence in free:
        logits = judge.logits(sequence.token_ids[:-1])[sequence.num_prompt_tokens - 1 :]
        chosen = logits.gather(-1, torch.tensor(sequence.output_token_ids)[:, None])[:, 0]
        third = logits.topk(3).values[:, 2]
        assert bool((chosen > third - CLOSE * logits.std()).all())


def _greedy(mine: list[Sequence]) -> list[Sequence]:
    for sequence in mine:
        sequence.sampling = SamplingParams(max_tokens=sequence.sampling.max_tokens)
    return mine


def test_ends_and_aborts_with_steps_in_flight(tiny: Any, oracle: Any) -> None:
    """Every place is taken, and ends come as a surprise: newcomers find rows and blocks all the same."""
    random = Random(1)
    engine = tiny.engine("llama", tokens=20_000, max_num_seqs=4, **ON_GPU)
    mine = tiny.sequences(60)
    for sequence in mine:
        sequence.stop_ids = frozenset(range(0, 60, 6))
        engine.loop.scheduler.add(sequence)
    while not engine.loop.is_idle:
        engine.loop.step()
        if random.random() < 0.3:
            engine.loop.scheduler.abort(random.choice(mine).id)
    assert engine.blocks.usage().used == 0
    answered = [sequence for sequence in mine if sequence.output_token_ids]
    assert {each.finish_reason for each in mine} == {"stop", "length", "abort"}
    assert worst(tiny, oracle, "llama", answered) < CLOSE


def test_siblings_copy_on_write(tiny: Any, oracle: Any) -> None:
    engine = tiny.engine("llama", tokens=20_000, **ON_GPU)
    parent = Sequence("0", list(range(50)), SamplingParams(max_tokens=20))
    rest = [Sequence(str(index), list(range(50)), SamplingParams(max_tokens=20), parent=parent) for index in (1, 2, 3)]
    tiny.run(engine, [parent, *rest])
    assert worst(tiny, oracle, "llama", [parent, *rest]) < CLOSE


@pytest.mark.parametrize("eager", [False, True])
def test_an_fp8_cache_says_nearly_the_same(tiny: Any, oracle: Any, eager: bool) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("FP8 needs compute capability 8.9")
    engine = tiny.engine("llama", tokens=20_000, kv_cache_dtype="fp8", enforce_eager=eager, **ON_GPU)
    mine = tiny.sequences(20)
    tiny.run(engine, mine)
    assert worst(tiny, oracle, "llama", mine) < 4 * CLOSE

"""From logits to tokens: right distributions, rules as transformers applies them, and rows that mind their own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.generation import logits_process
from velollm_cuda.asks import NOTHING, Asks
from velollm_cuda.kernels import reference
from velollm_cuda.sampler import delayed, logprobs, penalized, sample
from velollm_cuda.state import SlotTable
from velollm_cuda.tally import Tally

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.sequence import Sequence

CPU = torch.device("cpu")
LAYOUT = KVCacheLayout.uniform(1, 1, 8, block_size=4)
DRAWS = 3000


def table(*params: SamplingParams, prompt: tuple[int, ...] = (1, 2), **more: Any) -> tuple[SlotTable, list[Sequence]]:
    """A slot table with one sequence for each of ``params``, a vocabulary of eight, and room for two more."""
    state = SlotTable(len(params) + 2, CPU, LAYOUT, 64, 8)
    sequences = [Sequence(str(index), list(prompt), each, **more) for index, each in enumerate(params)]
    state.enter(sequences)
    return state, sequences


def draws(logits: Tensor, params: SamplingParams, count: int = DRAWS) -> Tensor:
    """How often each token comes, over ``count`` positions of one sequence."""
    state, sequences = table(params)
    rows = torch.full((count,), state.row(sequences[0]))
    found = sample(reference, logits.expand(count, -1), state, rows, torch.arange(count), state.asks)
    return torch.bincount(found, minlength=logits.shape[-1])


def chi_square(counts: Tensor, chances: Tensor) -> float:
    """How far ``counts`` are from ``chances``, in its standard deviations; what has no chance must not come."""
    assert not counts[chances == 0].any()
    expected = chances[chances > 0] * counts.sum()
    free = len(expected) - 1
    statistic = float(((counts[chances > 0] - expected) ** 2 / expected).sum())
    return (statistic - free) / math.sqrt(2 * free)


LOGITS = torch.tensor([[2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -3.0]])


def restricted_chances(temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """What transformers leaves of `LOGITS`."""
    scores = LOGITS / temperature
    if top_k:
        scores = logits_process.TopKLogitsWarper(top_k)(None, scores)
    if top_p < 1:
        scores = logits_process.TopPLogitsWarper(top_p)(None, scores)
    if min_p:
        scores = logits_process.MinPLogitsWarper(min_p)(None, scores)
    return scores.softmax(-1)[0]


RULES = [
    (1.0, 0, 1.0, 0.0), (0.5, 0, 1.0, 0.0), (2.0, 0, 1.0, 0.0), (1.0, 3, 1.0, 0.0), (1.0, 0, 0.7, 0.0),
    (1.0, 0, 1.0, 0.2), (1.5, 5, 0.8, 0.0), (1.5, 6, 0.9, 0.25), (0.7, 0, 0.9, 0.1),
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_draws_follow_the_distribution_that_transformers_leaves(rule: tuple[float, int, float, float]) -> None:
    temperature, top_k, top_p, min_p = rule
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=11)
    assert abs(chi_square(draws(LOGITS, params), restricted_chances(*rule))) < 4


def test_the_statistic_notices_a_wrong_distribution() -> None:
    counts = draws(LOGITS, SamplingParams(temperature=1.0, seed=11))
    assert chi_square(counts, restricted_chances(1.25, 0, 1.0, 0.0)) > 4


def test_a_large_vocabulary_keeps_its_shares() -> None:
    """Sixteen groups of equal tokens, each group twice as likely as the next."""
    group = torch.arange(4096) // 256
    counts = draws(-math.log(2) * group[None].float(), SamplingParams(temperature=1.0, seed=5), 2000)
    shares = torch.bincount(group, counts.double(), minlength=16)
    assert abs(chi_square(shares[:9], (0.5 ** torch.arange(1, 10)) / (1 - 0.5**9))) < 4


def test_seeds_reproduce_and_differ() -> None:
    one, same, other = (draws(LOGITS, SamplingParams(temperature=1.0, seed=seed), 60) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_without_a_seed_the_id_decides() -> None:
    state, sequences = table(*[SamplingParams(temperature=1.0, seed=None)] * 2)
    seeds = [int(state.seeds[state.row(sequence)]) for sequence in sequences]
    assert len(set(seeds)) == 2
    again, same = table(*[SamplingParams(temperature=1.0, seed=None)] * 2)
    assert [int(again.seeds[again.row(sequence)]) for sequence in same] == seeds


def test_repetition_penalty_is_that_of_transformers() -> None:
    random = torch.Generator().manual_seed(3)
    logits, tokens = torch.randn(1, 8, generator=random) * 3, [1, 1, 5, 7, 7, 7]
    tally = Tally(1, 8, CPU)
    sequence = Sequence("a", tokens[:2], SamplingParams())
    sequence.token_ids += tokens[2:]
    tally.enter(0, sequence)
    wanted = logits_process.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([tokens]), logits.clone())
    found = penalized(logits, tally.cells, torch.tensor([[1.7], [0.0], [0.0]]))
    assert torch.allclose(found, wanted)


def test_frequency_and_presence_look_at_the_answer_alone() -> None:
    tally = Tally(2, 4, CPU)
    sequence = Sequence("a", [0, 0, 1], SamplingParams())
    tally.enter(1, sequence)
    for token in (1, 3, 3):
        tally.count(torch.tensor([1]), torch.tensor([token]))
    assert tally.cells.tolist() == [[0, 0, 0, 0], [1, 3, 0, 4]]
    found = penalized(torch.zeros(1, 4), tally.cells[1:], torch.tensor([[1.0], [0.5], [0.25]]))
    assert found.tolist() == [[0.0, -0.75, 0.0, -1.25]]


def test_a_rows_penalties_leave_others_alone_and_leave_with_it() -> None:
    state, (harsh, mild) = table(SamplingParams(repetition_penalty=9.0, frequency_penalty=2.0), SamplingParams())
    rows = torch.tensor([state.row(harsh), state.row(mild)])
    logits = torch.tensor([[0.0, 3.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]]).repeat(2, 1)
    # Tokens 1 and 2 are in the prompt and ninths of what they were; each is gone once it was produced.
    chosen = [sample(reference, logits, state, rows, torch.tensor([at, at]), state.asks).tolist() for at in (1, 2, 3)]
    assert chosen == [[1, 1], [2, 1], [0, 1]]
    state.leave([harsh])
    assert state.asks == NOTHING
    newcomer = Sequence("new", [1], SamplingParams())
    state.enter([newcomer])
    assert state.row(newcomer) == int(rows[0]), "the row is used again"
    assert sample(reference, logits, state, rows, torch.tensor([3, 3]), Asks(penalized=True)).tolist() == [1, 1]


@pytest.mark.parametrize("least", [0, 1, 2])
def test_an_end_waits_for_min_tokens_and_no_longer(least: int) -> None:
    """Of a prompt of two tokens: the answer's token after ``least`` others is the first that may end it."""
    params = SamplingParams(min_tokens=least)
    state, (sequence,) = table(params, stop_ids=frozenset({6, 7}))
    rows = torch.tensor([state.row(sequence)])
    logits = torch.tensor([[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 8.0, 9.0]])
    chosen = [sample(reference, logits, state, rows, torch.tensor([at]), state.asks).item() for at in (1, 2, 3, 4)]
    assert chosen == [1] * least + [7] * (4 - least)


def test_delays_of_rows_with_fewer_ids() -> None:
    logits = torch.arange(10.0).view(2, 5)
    found = delayed(logits, torch.tensor([[4, 0, 4], [3, 3, 3]]), torch.tensor([True, False]))
    assert found.tolist() == [[-math.inf, 1, 2, 3, -math.inf], [5, 6, 7, 8, 9]]


def test_log_probabilities_are_the_models_own() -> None:
    """Whatever temperature, penalties and restrictions did to the choice."""
    params = SamplingParams(temperature=0.3, top_k=2, repetition_penalty=3.0, logprobs=True, seed=4)
    state, (sequence,) = table(params)
    row = torch.tensor([state.row(sequence)])
    chosen = sample(reference, LOGITS, state, row, torch.tensor([1]), state.asks)
    assert float(state.logprobs[row]) == pytest.approx(float(LOGITS.log_softmax(-1)[0, chosen]))
    assert float(logprobs(LOGITS.bfloat16(), torch.tensor([7]))) == pytest.approx(float(LOGITS.log_softmax(-1)[0, 7]))


def test_asks_are_those_of_the_living() -> None:
    params = [
        SamplingParams(), SamplingParams(temperature=1.0, top_k=3), SamplingParams(presence_penalty=1.0),
        SamplingParams(logprobs=True),
    ]  # fmt: skip
    state, sequences = table(*params)
    assert state.asks == Asks(restricted=True, penalized=True, logprobs=True)
    state.leave(sequences[1:3])
    assert state.asks == Asks(logprobs=True)
    state.leave(sequences)
    assert state.asks == NOTHING


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=3, top_p=0.5, min_p=0.1),
        SamplingParams(temperature=1.0, top_k=-1),
        SamplingParams(min_tokens=1),
        SamplingParams(min_tokens=5),
    ],
    ids=str,
)
def test_what_changes_nothing_asks_nothing(params: SamplingParams) -> None:
    """Greedy needs no restriction, -1 is all tokens, and without a stop token there is no end to delay."""
    state, _ = table(params)
    assert state.asks == NOTHING

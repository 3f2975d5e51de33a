"""From logits to tokens: each row by its own temperature, seed, restrictions and penalties."""

from __future__ import annotations

import torch
from torch import Tensor

from velollm_cuda.asks import Asks
from velollm_cuda.kernels.choice import Kernels
from velollm_cuda.state import SlotTable
from velollm_cuda.tally import PRODUCED


def sample(kernels: Kernels, logits: Tensor, state: SlotTable, rows: Tensor, positions: Tensor, asks: Asks) -> Tensor:
    """One token id for each of ``rows [B]`` int64 from logits ``[B, V]``; int64 ``[B]``.

    ``positions [B]`` are those of the tokens that the logits stand behind. Only what ``asks`` names is looked at; a
    row that asks for none of it is not changed by it. Log probabilities, those of the model before anything was
    applied, are left in ``state.logprobs``, those of the likeliest tokens in ``state.ranked_logprobs``.
    """
    scores = logits
    if asks.penalized:
        scores = penalized(scores, state.tally.cells[rows], state.penalties[:, rows])
    if asks.delayed:
        scores = delayed(scores, state.stop_ids[rows], positions < state.first_stop[rows])
    temperature, floors = state.temperature[rows], None
    if asks.restricted:
        floors = kernels.floors(scores, temperature, state.top_k[rows], state.top_p[rows], state.min_p[rows])
    chosen = kernels.gumbel_sample(scores, temperature, state.seeds[rows], positions, floors)
    if asks.penalized:
        state.tally.count(rows, chosen)
    if asks.logprobs:
        state.logprobs[rows] = logprobs(logits, chosen)
    if asks.ranked:
        state.ranked_ids[rows], state.ranked_logprobs[rows] = ranked(logits, state.ranked_ids.shape[1])
    return chosen


def penalized(logits: Tensor, tally: Tensor, penalties: Tensor) -> Tensor:
    """``logits [B, V]`` in fp32, each token less likely by what ``tally [B, V]`` says of it.

    ``penalties [3, B]``: repetition divides what is positive and multiplies what is negative, for tokens of prompt and
    answer (Keskar et al., 2019); frequency is subtracted for each time a token was produced, presence once.
    """
    repetition, frequency, presence = penalties[:, :, None]
    produced = tally // PRODUCED
    factor = torch.where(tally > 0, repetition, 1.0)
    wide = logits.float()
    wide = torch.where(wide > 0, wide / factor, wide * factor)
    lowered: Tensor = wide - frequency * produced - presence * (produced > 0)
    return lowered


def delayed(logits: Tensor, stop_ids: Tensor, early: Tensor) -> Tensor:
    """``logits [B, V]`` without the tokens ``stop_ids [B, N]`` in the rows that are ``early [B]``.

    A row of ids repeats its first where it has fewer than N.
    """
    kept = logits.gather(1, stop_ids)
    return logits.scatter(1, stop_ids, kept.masked_fill(early[:, None], float("-inf")))


def logprobs(logits: Tensor, chosen: Tensor) -> Tensor:
    """The natural logarithm of the probability of ``chosen [B]`` in ``logits [B, V]``, fp32 ``[B]``."""
    wide = logits.float()
    return wide.gather(1, chosen[:, None])[:, 0] - wide.logsumexp(-1)


def ranked(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` likeliest tokens of ``logits [B, V]``: ids int64 and log probabilities fp32, ``[B, count]``."""
    wide = logits.float()
    top = wide.topk(count)
    return top.indices, top.values - wide.logsumexp(-1, keepdim=True)

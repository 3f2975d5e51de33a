"""From a row of logits to a token id, in the child."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from velollm_llamacpp.engine.messages import Draw

Row = NDArray[np.float32]


def choose(logits: Row, draw: Draw) -> int:
    """The token of ``logits [V]`` by ``draw``: temperature first, then top-k, top-p, min-p, then one number.

    Raises:
        ValueError: the logits are no numbers.
    """
    if without := [token for token in draw.without if token < len(logits)]:
        # The row is llama.cpp's own memory.
        logits = logits.copy()
        logits[without] = -np.inf
    best = int(logits.argmax())
    if not np.isfinite(logits[best]):
        raise ValueError("the model's logits are not finite")
    if draw.temperature <= 0:
        return best
    ids, weights = _candidates(logits, draw, best)
    weights = np.where(_allowed(weights, draw), weights, 0.0)
    bounds = np.cumsum(weights)
    number = np.random.Generator(np.random.Philox(key=[draw.seed % 2**64, draw.position])).random()
    place = int(np.searchsorted(bounds, number * bounds[-1], side="right"))
    return int(ids[min(place, int(np.flatnonzero(weights)[-1]))])


def margin(logits: Row) -> float:
    """How far the best logit of ``logits [V]`` leads the second."""
    second, first = np.partition(logits, -2)[-2:]
    return float(first - second)


def _candidates(logits: Row, draw: Draw, best: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The top-k ids, likeliest first where an order is needed, and their probabilities."""
    count = len(logits)
    keep = draw.top_k if 0 < draw.top_k < count else count
    ids = np.argpartition(logits, count - keep)[count - keep :] if keep < count else np.arange(count)
    ids = ids[np.argsort(-logits[ids], kind="stable")] if draw.top_p < 1 else np.sort(ids)
    with np.errstate(over="ignore"):  # a temperature just above 0 leaves the best alone
        weights = np.exp((logits[ids].astype(np.float64) - float(logits[best])) / draw.temperature)
    return ids, weights / weights.sum()


def _allowed(weights: NDArray[np.float64], draw: Draw) -> NDArray[np.bool_]:
    allowed = np.ones(len(weights), bool)
    if draw.top_p < 1:
        # The likeliest stays, with a top_p of 0 too: nothing is before it.
        allowed &= np.cumsum(weights) - weights < max(draw.top_p, np.finfo(np.float64).tiny)
    if draw.min_p > 0:
        allowed &= weights >= draw.min_p * weights.max()
    return allowed

"""What earlier runs on this machine teach the next prediction."""

from __future__ import annotations

from math import exp, log
from statistics import median
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from velollm_core.figures import Interval, Rate

if TYPE_CHECKING:
    from collections.abc import Sequence

Phase = Literal["prefill", "decode"]

# Half the width of a corrected interval, as a logarithm: one run of another model tells less than three.
_FEW, _SAME_MODEL, _MANY = 0.35, 0.20, 0.10
# Models whose predicted speeds differ by more than this factor are bound by different things.
_LIKE = 4.0


@frozen
class Observation:
    """One phase of one run on this machine: tokens a second ``predicted`` (uncorrected) and ``measured``.

    ``where`` is what held the model: ``host``, ``gpu0``, ``host+gpu0``: a lesson about one says nothing about another.
    """

    phase: Phase
    where: str
    backend: str
    model: str
    predicted: float
    measured: float


def relevant(observations: Sequence[Observation], phase: Phase, where: str, backend: str | None) -> list[Observation]:
    """Those that can teach a prediction of ``phase`` on ``where``, by ``backend`` if one is named."""
    return [
        each
        for each in observations
        if each.phase == phase
        and each.where == where
        and backend in (None, each.backend)
        and each.predicted > 0
        and each.measured > 0
    ]


def telling(rate: Rate, lessons: Sequence[Observation], model: str) -> list[Observation]:
    """Those of ``lessons`` that ``rate`` is corrected by.

    Runs of the same ``model`` count alone where there are any, else those of models of a like speed: what bounds a
    tiny model does not bound a large one.
    """
    own = [each for each in lessons if each.model == model]
    return own or [each for each in lessons if 1 / _LIKE <= rate.value / each.predicted <= _LIKE]


def corrected(rate: Rate | None, lessons: Sequence[Observation], model: str) -> Rate | None:
    """``rate`` moved by the median of measured / predicted, its interval as wide as the `telling` lessons disagree.

    From five lessons on the furthest fifth may lie outside. Without lessons ``rate`` comes back as it is.
    """
    used = telling(rate, lessons, model) if rate is not None else []
    if rate is None or not used:
        return rate
    ratios = [log(each.measured / each.predicted) for each in used]
    middle = median(ratios)
    apart = sorted(abs(ratio - middle) for ratio in ratios)
    floor = _MANY if len(used) >= 3 else _SAME_MODEL if used[0].model == model else _FEW
    half = max(floor, apart[-1 - len(apart) // 5] * 1.25)
    value = rate.value * exp(middle)
    return Rate(value, rate.basis, Interval(value * exp(-half), value * exp(half)))

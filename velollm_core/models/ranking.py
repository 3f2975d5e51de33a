"""Which of many picks to show, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.figures import Rate
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.pick import Pick

# How far a cache type is from 16 bit: 0 none, 1 close to lossless, 2 visible on hard tasks, 3 costs quality.
_LOSS = {"f32": 0, "f16": 0, "bf16": 0, "q8_0": 1, "q5_1": 2, "q5_0": 2, "q4_1": 3, "iq4_nl": 3, "q4_0": 3}
# A gain below this is no reason for another row.
_NOTABLE = 1.03
_MUCH_FASTER = 1.10
# A step down in cache quality must save this much of a turn to be preferred.
_COARSER = 1.15


@frozen
class Floors:
    """The least a pick must give: ``context`` tokens a request, ``decode`` tokens a second with the context used up."""

    context: int | None = None
    decode: float | None = None

    def problem(self, pick: Pick) -> str | None:
        """How ``pick`` falls below a floor; None where it does not, or where its speed is unknown."""
        if self.context is not None and pick.context < self.context:
            return f"context {pick.context} is below the floor of {self.context} tokens"
        decode = pick.full.decode
        if self.decode is not None and decode is not None and decode.value < self.decode:
            return (
                f"decode of {decode.value:.1f} tokens/s at {pick.context} tokens is below the floor of {self.decode:g}"
            )
        return None


def quality(load: LoadSettings) -> int:
    """Loss of the coarser of the two cache types, 0 for 16 bit."""
    return max(_LOSS.get(load.type_k, 0), _LOSS.get(load.type_v, 0))


def best(picks: Sequence[Pick], load: LoadSettings, context: int, floors: Floors) -> list[Pick]:
    """Those of ``picks`` that fit, respect ``floors`` and are not beaten by another in everything, best first.

    What was asked for comes first where it fits. The rest goes by the seconds of a turn, lengthened by what is given up
    (a coarser cache, a shorter context, fewer slots); among equals the larger context comes first.
    """
    fitting = [pick for pick in picks if pick.fit.verdict != "no" and floors.problem(pick) is None]
    sure = [pick for pick in fitting if pick.fit.verdict == "yes"] or fitting
    asked = next((pick for pick in sure if pick.load == load), None)
    useful = [pick for pick in sure if pick is asked or not _pointless(pick, asked, load, context)]
    kept = [pick for pick in useful if pick is asked or not any(_beats(other, pick) for other in useful)]
    return sorted(kept, key=lambda pick: (pick is not asked, *_rank(pick, load, context)))


def _rank(pick: Pick, load: LoadSettings, context: int) -> tuple[float, ...]:
    seconds = pick.turn_seconds.value if pick.turn_seconds else 1.0
    coarser = max(0, quality(pick.load) - quality(load))
    shorter = max(1.0, context / pick.context)
    fewer = max(1.0, (load.parallel or 1) / pick.slots)
    return (round(seconds * _COARSER**coarser * shorter * fewer, 2), -pick.context, -pick.slots, pick.memory.total)


def _pointless(pick: Pick, asked: Pick | None, load: LoadSettings, context: int) -> bool:
    """Giving up context or slots when what was asked fits, or taking more slots, without much speed in return."""
    if asked is None:
        return False
    if pick.slots > asked.slots and pick.together and asked.together:
        return pick.together.value < _MUCH_FASTER * asked.together.value
    gives_up = pick.context < context or pick.slots < (load.parallel or 1)
    return gives_up and _speed(pick.start.decode) < _MUCH_FASTER * _speed(asked.start.decode)


def _beats(one: Pick, other: Pick) -> bool:
    """Whether ``one`` is nowhere worse and somewhere notably better, or equal and smaller."""
    if one is other:
        return False
    if (one.context, one.slots) == (other.context, other.slots):
        ours, theirs = _merits(one), _merits(other)
        ours.append(-one.memory.total)
        theirs.append(-other.memory.total)
    else:
        ours, theirs = _merits(one), _merits(other)
    if any(mine * _lenient(mine) < yours for mine, yours in zip(ours, theirs, strict=True)):
        return False
    return any(mine > yours * _lenient(yours) for mine, yours in zip(ours, theirs, strict=True))


def _lenient(merit: float) -> float:
    return _NOTABLE if merit > 0 else 1 / _NOTABLE


def _merits(pick: Pick) -> list[float]:
    return [
        pick.context,
        pick.slots,
        4 - quality(pick.load),
        _speed(pick.start.decode),
        _speed(pick.start.prefill),
    ]


def _speed(rate: Rate | None) -> float:
    return rate.value if rate else 1.0

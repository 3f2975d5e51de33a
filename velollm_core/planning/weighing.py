"""Ask the allocator while the alternatives are weighed: the engine answers in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.isolation import bounded_each
from velollm_core.models.alternatives import Alternatives, alternatives
from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.fit import fit
from velollm_core.models.pick import Pick, Scene
from velollm_core.planning.sources import ALLOCATOR_SECONDS, Sources

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.models.load import LoadSettings
    from velollm_core.models.ranking import Floors
    from velollm_core.planning.sources import Basis

# Scratch memory that the formula gets wrong by less than this part of what is free moves no pick.
_NEGLIGIBLE = 0.02


@frozen
class Weighed:
    """The bytes of what was asked, the sources with what they learnt, the scene that uses it, and the alternatives."""

    memory: MemoryBreakdown
    sources: Sources
    scene: Scene
    alternatives: Alternatives


def weigh_all(
    sources: Sources, scene: Scene, load: LoadSettings, context: int, floors: Floors | None, basis: Basis
) -> Weighed:
    """Both at once; the alternatives are weighed again where the engine teaches something that moves them.

    Raises:
        ModelRefused: the engine would not load the model so.
    """
    by_formula = evolve(scene, measure=_remembering(scene.measure))
    outcomes = bounded_each(
        {
            "engine": lambda: sources.answer(load, basis),
            "picks": lambda: alternatives(by_formula, load, context, floors),
        },
        3 * ALLOCATOR_SECONDS,
    )
    answer, picks = outcomes["engine"], outcomes["picks"]
    if isinstance(answer, BaseException):
        raise answer
    if isinstance(picks, BaseException):
        raise picks
    assert isinstance(answer, tuple)
    assert isinstance(picks, Alternatives)
    memory, learnt = answer
    taught = evolve(scene, measure=_remembering(learnt.formula, {load: memory}))
    if learnt.scaling.moves(_scratch(picks, scene), _NEGLIGIBLE):
        return Weighed(memory, learnt, taught, alternatives(taught, load, context, floors))
    again = evolve(picks, picks=tuple(_again(taught, pick) for pick in picks.picks))
    if any(pick.fit.verdict == "no" for pick in again.picks):
        again = alternatives(taught, load, context, floors)
    return Weighed(memory, learnt, taught, again)


def _scratch(picks: Alternatives, scene: Scene) -> float:
    """The part of the smallest device's free memory that the largest scratch takes by formula."""
    free = min((device.free for device in scene.devices if device.free), default=1)
    shown = [*picks.picks, *([picks.closest] if picks.closest else [])]
    return max((part.compute.high for pick in shown for part in pick.memory.devices), default=0) / free


def _again(scene: Scene, pick: Pick) -> Pick:
    memory = scene.measure(pick.load)
    found = fit(memory, scene.devices)
    return evolve(pick, memory=memory, fit=found, reason=found.reason)


def _remembering(
    measure: Callable[[LoadSettings], MemoryBreakdown], known: dict[LoadSettings, MemoryBreakdown] | None = None
) -> Callable[[LoadSettings], MemoryBreakdown]:
    answers = known or {}

    def remembered(load: LoadSettings) -> MemoryBreakdown:
        if load not in answers:
            answers[load] = measure(load)
        return answers[load]

    return remembered

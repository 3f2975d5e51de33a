"""The settings worth considering beside those asked for, ranked, each with what it trades."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.models.contexts import LEAST_CONTEXT, STEP, largest_context, with_cache
from velollm_core.models.offload import offload
from velollm_core.models.pick import Pick, Scene, weigh
from velollm_core.models.ranking import Floors, best, quality
from velollm_core.models.trades import hints, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velollm_core.models.load import LoadSettings

_MOST_PICKS = 8


@frozen
class Alternatives:
    """The ``picks`` that fit and respect the floors, best first, what was asked among them, and what else to know.

    Without any pick ``closest`` is what comes nearest, with its ``missing`` bytes and ``why`` it is no pick.
    """

    picks: tuple[Pick, ...]
    closest: Pick | None = None
    missing: int = 0
    why: str | None = None
    hints: tuple[str, ...] = ()


def alternatives(scene: Scene, load: LoadSettings, context: int, floors: Floors | None = None) -> Alternatives:
    """Weigh ``load`` (``context`` tokens a request) and what can be changed about it.

    ``load`` is taken as it is, its placement included; the others get the placement that suits them.
    """
    floors = floors or Floors()
    asked = weigh(scene, load, context)
    everything = [pick for pick in _weighed(scene, load, context) if pick is not None]
    candidates = [evolve(pick, trade=trade(pick, asked, load)) for pick in everything]
    ranked = best(candidates, load, context, floors)[:_MOST_PICKS]
    told = hints(scene, load, ranked, floors)
    if ranked:
        return Alternatives(tuple(ranked), hints=told)
    closest = min(candidates, key=lambda pick: _distance(pick, load), default=None)
    if closest is None:
        return Alternatives((), hints=told)
    why = floors.problem(closest) if closest.fit.verdict == "yes" else closest.fit.reason
    return Alternatives((), closest, closest.fit.missing, why, told)


def _weighed(scene: Scene, load: LoadSettings, context: int) -> Iterator[Pick | None]:
    seen = set()
    for candidate, tokens in ((load, context), *_variants(scene, load, context)):
        if candidate not in seen:
            seen.add(candidate)
            yield weigh(scene, candidate, tokens)


def _variants(scene: Scene, load: LoadSettings, context: int) -> Iterator[tuple[LoadSettings, int]]:
    slots = load.parallel or 1
    for types in _cache_types(load):
        placed = offload(scene, _sized(types, context, slots), load)
        yield placed, context
        fixed = evolve(types, gpu_layers=load.gpu_layers, cpu_moe_layers=load.cpu_moe_layers)
        for layout in dict.fromkeys((fixed, evolve(placed, total_context=load.total_context))):
            if (largest := largest_context(scene, layout, slots)) is not None:
                yield _sized(layout, largest, slots), largest
        for tokens in _ladder(scene, context):
            yield offload(scene, _sized(types, tokens, slots), load), tokens
    for count in {max(1, slots // 2), slots * 2, slots * 4} - {slots}:
        yield offload(scene, evolve(_sized(load, context, count), parallel=count), load), context
    for ubatch in (2048, 1024, 256, 128):
        yield offload(scene, evolve(load, ubatch=ubatch, batch=max(load.batch, ubatch)), load), context


def _cache_types(load: LoadSettings) -> Iterator[LoadSettings]:
    """``load`` with its own cache types and with 8-bit ones, where those are coarser and the engine takes them."""
    yield load
    if quality(load) >= quality(evolve(load, type_k="q8_0", type_v="q8_0")):
        return
    yield with_cache(load, "q8_0")


def _distance(pick: Pick, load: LoadSettings) -> tuple[float, ...]:
    """How far ``pick`` is from fitting, in percents of what it needs: less than one is no reason to change anything."""
    missing = pick.fit.missing * 100 // max(1, pick.memory.total)
    return (missing, pick.load != load, quality(pick.load), -pick.context)


def _ladder(scene: Scene, context: int) -> list[int]:
    """Contexts worth a look: halves and doubles of ``context`` within what the model was trained for."""
    halves = {context // 8, context // 4, context // 2}
    doubles = {context * 2, context * 4, context * 16, scene.spec.context_length}
    rounded = {tokens // STEP * STEP for tokens in halves | doubles}
    return sorted(tokens for tokens in rounded if LEAST_CONTEXT <= tokens <= scene.spec.context_length)


def _sized(load: LoadSettings, context: int, slots: int) -> LoadSettings:
    return evolve(load, total_context=context * slots)

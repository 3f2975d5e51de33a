"""How long a request can be, and in which cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.pick import Scene

# No context below this is worth offering; llama.cpp pads every cache to whole steps.
LEAST_CONTEXT = 512
STEP = 256


def largest_context(scene: Scene, load: LoadSettings, slots: int) -> int | None:
    """The most tokens a request may use with ``load``'s placement and types, up to the trained context.

    None where not even the least does.
    """
    most = max(scene.spec.context_length, LEAST_CONTEXT) // STEP

    def holds(steps: int) -> bool:
        found = scene.fit(evolve(load, total_context=steps * STEP * slots))
        return found is not None and found.verdict == "yes"

    low, high = LEAST_CONTEXT // STEP, most + 1
    if not holds(low):
        return None
    if holds(most):
        return most * STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low * STEP


def with_cache(load: LoadSettings, kind: str) -> LoadSettings:
    """``load`` with a cache of ``kind``; V stays as it is where flash attention is off, which it would need."""
    if load.flash_attn == "off":
        return evolve(load, type_k=kind)
    return evolve(load, type_k=kind, type_v=kind, flash_attn="on")

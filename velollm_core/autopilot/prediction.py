"""What was predicted, what was measured, and what the next prediction learns from it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.figures import Rate
from velollm_core.models.correction import Observation, Phase, corrected, relevant
from velollm_core.models.devices import devices
from velollm_core.models.pick import gpu_shares
from velollm_core.models.placement import place
from velollm_core.models.roofline import predict
from velollm_core.planning.answer import where

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from velollm_core.autopilot.shape import Shape
    from velollm_core.backends.setting import Plan
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec


@frozen
class Foreseen:
    """One phase: tokens a second as the roofline has it (``plain``), as earlier runs here correct it, and as measured.

    ``where`` is what holds the model; ``measured`` None where it was not.
    """

    phase: Phase
    where: str
    plain: Rate
    expected: Rate
    measured: float | None = None

    @property
    def within(self) -> bool | None:
        """Whether the measured speed lies in the interval that was expected; None without either."""
        interval = self.expected.interval
        return None if self.measured is None or interval is None else interval.low <= self.measured <= interval.high


def foresee(
    spec: ModelSpec, plan: Plan, hardware: Hardware, shape: Shape, lessons: Sequence[Observation]
) -> tuple[Foreseen, ...]:
    """The speed of the planned settings at the depth that will be measured; empty where nothing can be said."""
    if plan.load is None:
        return ()
    found = devices(hardware)
    placement = place(spec, plan.load, gpu_shares(found))
    decode = predict(spec, plan.load, placement, found, shape.prompt_tokens + shape.answer_tokens // 2).decode
    prefill = predict(spec, plan.load, placement, found, shape.prompt_tokens).prefill
    place_name = where(placement)
    foreseen = []
    rates: Mapping[Phase, Rate | None] = {"prefill": prefill, "decode": decode}
    for phase, rate in rates.items():
        expected = corrected(rate, relevant(lessons, phase, place_name, plan.backend), spec.name)
        if rate is not None and expected is not None:
            foreseen.append(Foreseen(phase, place_name, rate, expected))
    return tuple(foreseen)


def lessons_of(foreseen: Sequence[Foreseen], plan: Plan, spec: ModelSpec) -> list[Observation]:
    """What the measured phases teach."""
    return [
        Observation(each.phase, each.where, plan.backend, spec.name, each.plain.value, each.measured)
        for each in foreseen
        if each.measured
    ]

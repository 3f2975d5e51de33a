"""Predictions that start from what earlier runs on this machine taught."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.models.correction import Observation, Phase, corrected, relevant
from velollm_core.models.devices import devices
from velollm_core.models.pick import gpu_shares
from velollm_core.models.placement import Placement, place
from velollm_core.models.prediction import Prediction
from velollm_core.models.roofline import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from velollm_core.figures import Rate
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec


def where(placement: Placement) -> str:
    """The devices that hold layers, as `Observation.where` names them: ``host``, ``gpu0``, ``host+gpu0``."""
    return "+".join(name for name in placement.devices if name in {*placement.layers, *placement.experts})


def correction(
    spec: ModelSpec, lessons: Sequence[Observation], backend: str | None = None
) -> Callable[[Rate | None, Phase, Placement], Rate | None]:
    """A `Scene.correct` that applies ``lessons`` (of ``backend``, if one is named) to predictions of ``spec``."""

    def correct(rate: Rate | None, phase: Phase, placement: Placement) -> Rate | None:
        return corrected(rate, relevant(lessons, phase, where(placement), backend), spec.name)

    return correct


def corrected_prediction(
    spec: ModelSpec,
    load: LoadSettings,
    hardware: Hardware,
    lessons: Sequence[Observation],
    *,
    backend: str | None,
    depth: int,
) -> Prediction:
    """`predict` for this machine, with what earlier runs on it taught."""
    found = devices(hardware)
    placement = place(spec, load, gpu_shares(found))
    plain, correct = predict(spec, load, placement, found, depth), correction(spec, lessons, backend)
    return Prediction(
        correct(plain.prefill, "prefill", placement), correct(plain.decode, "decode", placement), plain.depth
    )

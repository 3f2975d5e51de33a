"""One way to load a model, weighed: memory, fit, speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import field, frozen

from velollm_core.errors import ModelRefused
from velollm_core.figures import Rate
from velollm_core.models.breakdown import MemoryBreakdown
from velollm_core.models.fit import Fit, fit
from velollm_core.models.load import LoadSettings
from velollm_core.models.placement import Placement, place
from velollm_core.models.prediction import Prediction
from velollm_core.models.roofline import decode_rate, predict, turn_seconds
from velollm_core.models.span import Span

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.models.correction import Phase
    from velollm_core.models.devices import Device
    from velollm_core.models.spec import ModelSpec


@frozen
class Turn:
    """What one turn of a conversation is taken to be: tokens of prompt and of answer."""

    prompt: int
    answer: int

    @classmethod
    def within(cls, context: int) -> Turn:
        """1024 and 256 tokens, less where ``context`` holds fewer than twice that."""
        return cls(min(1024, max(1, context * 2 // 5)), min(256, max(1, context // 10)))


@frozen
class Pick:
    """Settings with what they cost and give.

    ``context`` is the tokens one request may use, ``slots`` the requests at a time. ``start`` predicts at the depth of
    one turn, ``full`` where the context is used up. ``turn_seconds`` is from a prompt's arrival to the last token of
    the answer, ``together`` the tokens a second that all slots decode at once. ``trade`` says in one line what differs
    from what was asked, ``reason`` why it fits or not, ``command`` starts a llama-server so.
    """

    load: LoadSettings
    context: int
    slots: int
    memory: MemoryBreakdown
    fit: Fit
    start: Prediction
    full: Prediction
    turn_seconds: Rate | None
    together: Rate | None = None
    trade: str = ""
    reason: str = ""
    command: str | None = None


def _as_predicted(rate: Rate | None, _phase: Phase, _placement: Placement) -> Rate | None:
    return rate


@frozen
class Scene:
    """What stays the same while settings are compared: the model, the machine, where bytes and corrections come from.

    ``measure`` gives the bytes of some settings, overhead included; ``correct`` applies what earlier runs taught.
    """

    spec: ModelSpec
    devices: tuple[Device, ...]
    measure: Callable[[LoadSettings], MemoryBreakdown]
    turn: Turn
    correct: Callable[[Rate | None, Phase, Placement], Rate | None] = field(default=_as_predicted)

    @property
    def gpus(self) -> tuple[Device, ...]:
        """The devices that are GPUs and say what they have free."""
        return tuple(device for device in self.devices if device.gpu is not None and device.free)

    @property
    def shares(self) -> tuple[float, ...]:
        """Each GPU's part of the offloaded layers: as its free memory."""
        return gpu_shares(self.devices)

    def fit(self, load: LoadSettings) -> Fit | None:
        """Whether ``load`` fits; None where the engine would refuse it."""
        try:
            return fit(self.measure(load), self.devices)
        except ModelRefused:
            return None


def gpu_shares(devices: tuple[Device, ...]) -> tuple[float, ...]:
    """Each GPU's part of the offloaded layers, as llama.cpp splits them by default: by free memory."""
    return tuple(float(device.free or 1) for device in devices if device.gpu is not None)


def weigh(scene: Scene, load: LoadSettings, context: int) -> Pick | None:
    """``load`` weighed, with ``context`` tokens for each request; None where the engine would refuse it."""
    try:
        memory = scene.measure(load)
    except ModelRefused:
        return None
    placement = place(scene.spec, load, scene.shares)
    start = _predict(scene, load, placement, min(scene.turn.prompt, context))
    full = _predict(scene, load, placement, context)
    seconds = turn_seconds(start.prefill, start.decode, scene.turn.prompt, scene.turn.answer)
    found = fit(memory, scene.devices)
    return Pick(
        load=load,
        context=context,
        slots=memory.sequences,
        memory=memory,
        fit=found,
        start=start,
        full=full,
        turn_seconds=seconds.rate() if seconds else None,
        together=_together(scene, load, placement, context, memory.sequences),
        reason=found.reason,
    )


def _together(scene: Scene, load: LoadSettings, placement: Placement, context: int, slots: int) -> Rate | None:
    depth = min(scene.turn.prompt, context)
    rate = decode_rate(scene.spec, load, placement, scene.devices, depth, slots)
    rate = scene.correct(rate, "decode", placement)
    return (Span.of(rate) * Span.exact(slots)).rate() if rate else None


def _predict(scene: Scene, load: LoadSettings, placement: Placement, depth: int) -> Prediction:
    raw = predict(scene.spec, load, placement, scene.devices, depth)
    return Prediction(
        scene.correct(raw.prefill, "prefill", placement), scene.correct(raw.decode, "decode", placement), depth
    )

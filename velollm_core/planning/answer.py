"""The answer of `velollm plan`: bytes, fit, speed, placement, and what else could be done."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.models.alternatives import Alternatives
from velollm_core.models.correction import relevant, telling
from velollm_core.models.devices import HOST, Device
from velollm_core.models.load import LoadSettings
from velollm_core.models.offload import offload
from velollm_core.models.pick import Pick, Scene, Turn, weigh
from velollm_core.models.placement import Placement, place
from velollm_core.models.roofline import basis as speed_basis
from velollm_core.models.roofline import predict
from velollm_core.models.trades import AS_ASKED
from velollm_core.planning.lessons import correction
from velollm_core.planning.lessons import where as where
from velollm_core.planning.server_command import server_command
from velollm_core.planning.weighing import weigh_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.figures import Rate
    from velollm_core.models.correction import Observation, Phase
    from velollm_core.models.ranking import Floors
    from velollm_core.models.spec import ModelSpec
    from velollm_core.planning.asked import Asked
    from velollm_core.planning.sources import Basis, Sources


@frozen
class ModelSummary:
    """A model in a few words; ``bytes`` is the sum of its tensors."""

    name: str
    architecture: str
    source: str
    format: str
    quantization: str
    parameters: int
    bytes: int
    layers: int
    context_length: int


@frozen
class PlanAnswer:
    """Everything that `velollm plan` says.

    ``pick`` is what was asked for, weighed; ``memory`` and its fit are in it. ``speed_basis`` are the lines behind the
    predictions, ``placement`` says what lives where.
    """

    model: ModelSummary
    pick: Pick
    alternatives: Alternatives
    speed_basis: tuple[str, ...]
    turn: Turn
    placement: str
    notes: tuple[str, ...]


def make_answer(
    sources: Sources,
    asked: Asked,
    *,
    basis: Basis = "both",
    floors: Floors | None = None,
    lessons: Sequence[Observation] = (),
) -> PlanAnswer:
    """Weigh what was ``asked`` and everything beside it.

    Raises:
        ModelRefused: the engine would not load the model as asked.
    """
    spec, context = sources.spec, asked.request_context(sources.spec)
    scene = _scene(sources, context, lessons)
    load = _placed(asked, scene)
    weighed = weigh_all(sources, scene, load, context, floors, basis)
    pick = weigh(weighed.scene, load, context)
    assert pick is not None, "its memory has just been measured"
    placement = place(spec, load, scene.shares)
    notes = [asked.context_note(spec), _no_gpu(scene, load), _too_big(pick), *spec.notes, *weighed.memory.notes]
    notes += [weighed.sources.note, _lessons_note(scene, pick, placement, lessons)]
    return PlanAnswer(
        model=summary(spec),
        pick=_with_command(spec, evolve(pick, trade=AS_ASKED)),
        alternatives=_with_commands(spec, weighed.alternatives),
        speed_basis=speed_basis(placement, scene.devices),
        turn=scene.turn,
        placement=describe(placement, scene.devices),
        notes=tuple(dict.fromkeys(note for note in notes if note)),
    )


def summary(spec: ModelSpec) -> ModelSummary:
    """The few words about ``spec`` that an answer begins with."""
    return ModelSummary(
        name=spec.name,
        architecture=spec.architecture,
        source=spec.source,
        format=spec.format,
        quantization=spec.quantization,
        parameters=spec.parameters,
        bytes=spec.tensor_bytes,
        layers=len(spec.main_layers),
        context_length=spec.context_length,
    )


def describe(placement: Placement, devices: Sequence[Device]) -> str:
    """What lives where, in one line."""
    titles = {device.name: f"{device.name} ({device.title})" for device in devices}
    runs = [
        (name, [index for index, _ in run]) for name, run in groupby(enumerate(placement.layers), lambda each: each[1])
    ]
    parts = [f"{_layers(indices)} {_where(name, titles)}" for name, indices in runs]
    parts.append(f"output {_where(placement.output, titles)}")
    moved = sum(layer != home for layer, home in zip(placement.layers, placement.experts, strict=True))
    if moved:
        parts.append(f"routed experts of {moved} layers in main memory")
    if placement.output != HOST:
        parts.append("token embeddings in main memory")
    return ", ".join(parts)


def _scene(sources: Sources, context: int, lessons: Sequence[Observation]) -> Scene:
    return Scene(
        sources.spec, sources.devices, sources.formula, Turn.within(context), correction(sources.spec, lessons)
    )


def _placed(asked: Asked, scene: Scene) -> LoadSettings:
    load = asked.load_settings(scene.spec)
    return offload(scene, load) if asked.gpu_layers is None else load


def _with_command(spec: ModelSpec, pick: Pick) -> Pick:
    return evolve(pick, command=server_command(spec, pick.load))


def _with_commands(spec: ModelSpec, found: Alternatives) -> Alternatives:
    closest = _with_command(spec, found.closest) if found.closest else None
    return evolve(found, picks=tuple(_with_command(spec, pick) for pick in found.picks), closest=closest)


def _no_gpu(scene: Scene, load: LoadSettings) -> str | None:
    if not load.gpu_layers or scene.shares:
        return None
    return f"there is no GPU here: {load.gpu_layers} layers on the GPU come to none"


def _too_big(pick: Pick) -> str | None:
    return (
        "the speeds are those of memory; what must be read from disk is far slower" if pick.fit.sure is False else None
    )


def _layers(indices: Sequence[int]) -> str:
    return f"layer {indices[0]}" if len(indices) == 1 else f"layers {indices[0]}–{indices[-1]}"


def _where(name: str, titles: dict[str, str]) -> str:
    return "in main memory" if name == HOST else f"on {titles.get(name, name)}"


def _lessons_note(scene: Scene, pick: Pick, placement: Placement, lessons: Sequence[Observation]) -> str | None:
    plain = predict(scene.spec, pick.load, placement, scene.devices, pick.start.depth)
    phases: list[tuple[Phase, Rate | None]] = [("prefill", plain.prefill), ("decode", plain.decode)]
    used = sum(
        len(telling(rate, relevant(lessons, phase, where(placement), None), scene.spec.name))
        for phase, rate in phases
        if rate is not None
    )
    return f"the predictions are corrected by {used} earlier measurements on this machine" if used else None

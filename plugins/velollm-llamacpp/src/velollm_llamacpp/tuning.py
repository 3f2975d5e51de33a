"""Choose how to load a model for a workload on this machine, and explain each setting. No I/O, nothing is measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.setting import Plan
from velollm_core.errors import ModelRefused
from velollm_core.models.contexts import largest_context, with_cache
from velollm_core.models.devices import devices
from velollm_core.models.fit import with_overhead
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.offload import offload
from velollm_core.models.pick import Pick, Scene, Turn, gpu_shares, weigh
from velollm_llamacpp.need import Need, need
from velollm_llamacpp.reasons import settings
from velollm_llamacpp.server import NAME

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.spec import ModelSpec

BATCH, UBATCH = 2048, 512
SMALLER_UBATCH = 128
SMALLER_CACHE = "q8_0"
"""Half of 16 bit, close to lossless; coarser ones are never chosen unasked."""

NO_GPU_BUILD = "this llama.cpp was built without support for the GPU here: it stays unused"
NOT_KEPT = (
    "llama.cpp keeps no settings: they last as long as the server started with them; -o FILE.sh keeps the command"
)


@frozen
class Choice:
    """What was chosen: the pick, the need it serves, and the scene it was weighed in."""

    pick: Pick
    need: Need
    scene: Scene


def plan(model: ModelSpec, hardware: Hardware, workload: Workload, *, offloads: bool) -> Plan:
    """The plan for ``model`` under ``workload``; with ``offloads`` False this llama.cpp cannot use GPUs.

    Raises:
        ModelRefused: llama.cpp would not load the model with any settings considered.
    """
    usable = hardware if offloads else evolve(hardware, gpus=())
    wanted = need(model, workload)
    choice = choose(scene(model, usable, wanted.tokens), wanted, max(1, workload.concurrency))
    notes = [NOT_KEPT]
    if hardware.visible_gpus and not offloads:
        notes.insert(0, NO_GPU_BUILD)
    if choice.pick.fit.verdict != "yes":
        notes.insert(0, _shortage(choice))
    return Plan(
        backend=NAME,
        model=model.source,
        settings=tuple(settings(choice.pick, choice.need, model, usable)),
        load=choice.pick.load,
        memory=choice.pick.memory,
        fits=choice.pick.fit.sure,
        prediction=choice.pick.start,
        notes=tuple(notes),
    )


def scene(model: ModelSpec, hardware: Hardware, context: int) -> Scene:
    """``model`` on the devices of ``hardware``, its bytes by formula; turns are imagined within ``context``."""
    found = devices(hardware)

    def measure(load: LoadSettings) -> MemoryBreakdown:
        return with_overhead(memory(model, load, gpu_shares(found)), found)

    return Scene(model, found, measure, Turn.within(context))


def choose(scene: Scene, wanted: Need, slots: int) -> Choice:
    """The first way to load the model that surely fits, from the best on; else the one that comes nearest.

    Raises:
        ModelRefused: llama.cpp would refuse every one of them.
    """
    weighed = [
        (pick, evolve(wanted, tokens=tokens))
        for load, tokens in _ways(scene, wanted, slots)
        if (pick := weigh(scene, load, tokens)) is not None
    ]
    if not weighed:
        raise ModelRefused(f"{scene.spec.name}: llama.cpp would refuse it with every setting considered")
    for verdict in ("yes", "maybe", "unknown"):
        for pick, given in weighed:
            if pick.fit.verdict == verdict:
                return Choice(pick, given, scene)
    pick, given = min(weighed, key=lambda each: each[0].fit.missing)
    return Choice(pick, given, scene)


def _ways(scene: Scene, wanted: Need, slots: int) -> Iterator[tuple[LoadSettings, int]]:
    """Ways to load, the best first: each gives up something that the one before had."""
    for tokens in dict.fromkeys((wanted.tokens, wanted.least)):
        full = _load(tokens, slots)
        for load in (full, with_cache(full, SMALLER_CACHE), _short(with_cache(full, SMALLER_CACHE))):
            yield offload(scene, load), tokens


def _load(tokens: int, slots: int) -> LoadSettings:
    total = tokens * slots
    return LoadSettings(
        total_context=total, parallel=slots, kv_unified=False, batch=min(BATCH, total), ubatch=min(UBATCH, total)
    )


def _short(load: LoadSettings) -> LoadSettings:
    return evolve(load, ubatch=min(SMALLER_UBATCH, load.ubatch))


def _shortage(choice: Choice) -> str:
    pick, slots = choice.pick, choice.pick.load.parallel or 1
    largest = largest_context(choice.scene, pick.load, slots)
    hint = f"{largest} tokens a request would surely fit" if largest else "a smaller model or quantization is needed"
    sure = "does not fit" if pick.fit.verdict == "no" else "may not fit"
    return f"this {sure}: {pick.fit.reason}; {hint}"

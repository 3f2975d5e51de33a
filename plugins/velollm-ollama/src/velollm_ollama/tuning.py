"""Plan the settings of one model on one Ollama: from its bytes, the machine, and what the workload needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.backends.setting import Plan, Setting
from velollm_core.errors import ModelRefused
from velollm_core.models.contexts import largest_context, with_cache
from velollm_core.models.devices import devices
from velollm_core.models.fit import with_overhead
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.offload import offload
from velollm_core.models.pick import Pick, Scene, Turn, gpu_shares, weigh
from velollm_ollama import plan_text as say
from velollm_ollama.automatic import FIT_TARGET, automatic_batch, default_context, maps_weights, single_slot
from velollm_ollama.facts import Facts
from velollm_ollama.server_settings import server_settings

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.devices import Device
    from velollm_core.models.spec import ModelSpec

LEAST = 4
SMALLEST_USEFUL = 4096
# A byte-level vocabulary spends at least one token on so many bytes of ordinary text; with room for a template.
_BYTES_A_TOKEN = 2
_TEMPLATE = 128


@frozen
class Choice:
    """What was decided, with half a sentence on each."""

    pick: Pick
    context_reason: str
    slots_reason: str
    cache_reason: str


def optimize(model: ModelSpec, hardware: Hardware, workload: Workload, facts: Facts) -> Plan:
    """The plan for ``model``; raises `ModelRefused` where no setting would make the engine load it."""
    if model.refusal:
        raise ModelRefused(f"{model.name}: {model.refusal}")
    scene = _scene(model, hardware, workload)
    choice = _choose(scene, hardware, workload, facts)
    pick = choice.pick
    server = server_settings(pick, choice.slots_reason, choice.cache_reason, hardware, facts)
    return Plan(
        backend="ollama",
        model=workload.model or model.name,
        settings=(*_parameters(choice, scene, hardware), *server),
        load=pick.load,
        memory=pick.memory,
        fits=pick.fit.sure,
        prediction=pick.start,
        notes=tuple(say.notes(pick, scene, hardware, workload, facts)),
    )


def needed_context(workload: Workload) -> int | None:
    """Tokens that one request of ``workload`` may use; None where it does not say."""
    if workload.context is not None:
        return workload.context
    needs = [len(task.prompt.encode()) // _BYTES_A_TOKEN + _TEMPLATE + task.max_tokens for task in workload.tasks]
    return max(needs) if needs else None


def _scene(model: ModelSpec, hardware: Hardware, workload: Workload) -> Scene:
    """The machine as llama.cpp's fitting sees it: a margin stays free on every GPU."""
    places = tuple(_with_margin(device) for device in devices(hardware))
    shares = gpu_shares(places)

    def measure(load: LoadSettings) -> MemoryBreakdown:
        return with_overhead(memory(model, load, shares), places)

    return Scene(model, places, measure, Turn.within(workload.context or model.context_length))


def _with_margin(device: Device) -> Device:
    if device.gpu is None or device.free is None or device.shared:
        return device
    reason = f"{device.reason}, less the 1 GiB that llama.cpp leaves free"
    return evolve(device, free=max(0, device.free - FIT_TARGET), reason=reason)


def _choose(scene: Scene, hardware: Hardware, workload: Workload, facts: Facts) -> Choice:
    slots, slots_reason = _slots(scene.spec, workload, facts)
    need = needed_context(workload)
    while True:
        choice = _with_slots(scene, hardware, need, slots, facts)
        if choice is None:
            raise ModelRefused(f"{scene.spec.name}: llama.cpp would not load it with any cache that Ollama offers")
        if slots == 1 or choice.pick.fit.verdict in ("yes", "unknown"):
            return evolve(choice, slots_reason=slots_reason)
        slots -= 1
        slots_reason = f"memory holds {slots} of the {workload.concurrency} contexts asked for"


def _slots(spec: ModelSpec, workload: Workload, facts: Facts) -> tuple[int, str]:
    if not facts.completes:
        return 1, "embedding models are held at one slot"
    if single_slot(spec.architecture, facts.version):
        return 1, f"Ollama {facts.version} holds the architecture {spec.architecture} at one slot, whatever is set"
    count = max(1, workload.concurrency)
    if count == 1:
        return 1, "one request at a time: each further slot would cost a context of its own"
    return count, f"{count} requests at a time, each with a context of its own"


def _with_slots(scene: Scene, hardware: Hardware, need: int | None, slots: int, facts: Facts) -> Choice | None:
    """The first cache type that keeps the context whole where it should be; else the finest that loads at all."""
    found: list[Choice] = []
    for kind in ("f16", "q8_0"):
        choice = _with_type(scene, hardware, need, slots, kind, facts)
        if choice is None:
            continue
        if _whole(choice.pick, scene):
            return choice
        found.append(choice)
    fitting = [choice for choice in found if choice.pick.fit.verdict == "yes"]
    return next(iter(fitting or found), None)


def _with_type(
    scene: Scene, hardware: Hardware, need: int | None, slots: int, kind: str, facts: Facts
) -> Choice | None:
    start = min(need or default_context(hardware, facts.version), scene.spec.context_length)
    load = _load(scene.spec, hardware, max(start, LEAST), slots, facts)
    if kind != "f16":
        load = with_cache(load, kind)
    if need is None:
        context, reason = _free_context(scene, load, slots, start)
    else:
        context, reason = start, say.needed(need, scene.spec)
    load = _sized(scene.spec, hardware, load, context, slots, facts)
    pick = weigh(scene, offload(scene, load), context)
    if pick is None:
        return None
    return Choice(pick, reason, "", say.cache(kind))


def _free_context(scene: Scene, load: LoadSettings, slots: int, start: int) -> tuple[int, str]:
    """Without a need: the largest context that stays whole on the GPUs; on a CPU alone Ollama's own default."""
    if not scene.gpus:
        return start, "Ollama's own default: nothing asks for more, and main memory sets no speed limit here"
    whole = evolve(load, gpu_layers=scene.spec.block_count + 1)
    largest = largest_context(scene, whole, slots)
    if largest is None or largest < min(SMALLEST_USEFUL, scene.spec.context_length):
        return start, "Ollama's own default: the GPU does not hold the whole model with a useful context"
    return largest, "the largest that keeps the whole model on the GPU"


def _load(spec: ModelSpec, hardware: Hardware, context: int, slots: int, facts: Facts) -> LoadSettings:
    load = LoadSettings(context * slots, parallel=slots, kv_unified=False, mmap=maps_weights(hardware, facts.version))
    return _sized(spec, hardware, load, context, slots, facts)


def _sized(
    spec: ModelSpec, hardware: Hardware, load: LoadSettings, context: int, slots: int, facts: Facts
) -> LoadSettings:
    batch = automatic_batch(spec, context * slots, hardware, facts.version)
    return evolve(load, total_context=context * slots, batch=batch, ubatch=batch)


def _whole(pick: Pick, scene: Scene) -> bool:
    """Whether nothing is lost: all of it fits, and on the GPUs where there are some."""
    if pick.fit.verdict != "yes":
        return False
    return not scene.gpus or (pick.load.gpu_layers > scene.spec.block_count and not pick.load.cpu_moe_layers)


def _parameters(choice: Choice, scene: Scene, hardware: Hardware) -> Iterator[Setting]:
    pick = choice.pick
    yield Setting("num_ctx", pick.context, "model", choice.context_reason, "rule")
    on_host = pick.load.gpu_layers <= scene.spec.block_count
    cores, machine = hardware.cpu.usable_cores, hardware.cpu.physical_cores
    if on_host and machine is not None and cores < machine:
        reason = f"{cores} of the machine's {machine} cores are this process's to use; llama.cpp would start {machine}"
        yield Setting("num_thread", cores, "model", reason, "rule")

"""What a pick gives and takes against what was asked for, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velollm_core.models.contexts import largest_context, with_cache
from velollm_core.models.ranking import Floors, quality

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velollm_core.figures import Rate
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.pick import Pick, Scene

AS_ASKED = "as asked for"
_QUALITY = ("without loss", "close to lossless", "a little quality", "costs quality")


def trade(pick: Pick, asked: Pick | None, load: LoadSettings) -> str:
    """How ``pick`` differs from ``asked`` (settings ``load``), then what that costs and gains."""
    changes = list(_changes(pick, asked, load))
    if not changes:
        return AS_ASKED
    effects = list(_effects(pick, asked)) if asked else []
    return ", ".join(changes) + (": " + ", ".join(effects) if effects else "")


def hints(scene: Scene, load: LoadSettings, picks: Sequence[Pick], floors: Floors) -> tuple[str, ...]:
    """What lies below the quality floor or outside the settings, one line each."""
    return (*_four_bit(scene, load, picks), *_weights(scene, picks), *_unknown(picks, floors))


def _changes(pick: Pick, asked: Pick | None, load: LoadSettings) -> Iterator[str]:
    other = pick.load
    if asked is not None and pick.context != asked.context:
        yield f"{pick.context} tokens a request instead of {asked.context}"
    if (other.type_k, other.type_v) != (load.type_k, load.type_v):
        kinds = other.type_k if other.type_k == other.type_v else f"{other.type_k}/{other.type_v}"
        yield f"KV cache in {kinds} ({_QUALITY[quality(other)]})"
    if other.parallel != load.parallel:
        yield f"{pick.slots} slots instead of {load.parallel or 4}"
    if other.gpu_layers != load.gpu_layers:
        yield f"{other.gpu_layers} layers on the GPU instead of {load.gpu_layers}"
    if other.cpu_moe_layers != load.cpu_moe_layers:
        yield f"experts of {other.cpu_moe_layers} layers in main memory instead of {load.cpu_moe_layers}"
    if other.ubatch != load.ubatch:
        yield f"ubatch {other.ubatch} instead of {load.ubatch}"


def _effects(pick: Pick, asked: Pick) -> Iterator[str]:
    difference = pick.memory.total - asked.memory.total
    if abs(difference) >= 1 << 20:
        yield f"{_size(abs(difference))} {'more' if difference > 0 else 'less'}"
    for name, ours, theirs in (
        ("decode", pick.start.decode, asked.start.decode),
        ("prefill", pick.start.prefill, asked.start.prefill),
    ):
        if (change := _percent(ours, theirs)) is not None:
            yield f"{name} {change:+d}%"
    if pick.slots > asked.slots and pick.together and asked.together:
        yield f"{pick.together.value:.0f} tokens/s together instead of {asked.together.value:.0f}"
    if pick.context > asked.context and (change := _percent(pick.full.decode, asked.full.decode)) is not None:
        yield f"decode {change:+d}% when the context is used up"


def _percent(ours: Rate | None, theirs: Rate | None) -> int | None:
    if ours is None or theirs is None:
        return None
    change = round(100 * (ours.value / theirs.value - 1))
    return change if abs(change) >= 1 else None


def _four_bit(scene: Scene, load: LoadSettings, picks: Sequence[Pick]) -> Iterator[str]:
    if quality(load) >= 3:
        return
    reached = max((pick.context for pick in picks), default=0)
    slots = load.parallel or 1
    largest = largest_context(scene, with_cache(load, "q4_0"), slots)
    if largest is not None and largest > reached:
        yield f"a 4-bit KV cache would give {largest} tokens (+{largest - reached}), but costs quality: --kv-type q4_0"


def _weights(scene: Scene, picks: Sequence[Pick]) -> Iterator[str]:
    free = sum(device.free or 0 for device in scene.devices if not device.shared)
    weights, parameters = scene.spec.tensor_bytes, scene.spec.parameters
    if picks or not parameters or weights < free:
        return
    bits = 8 * 0.85 * free / parameters
    if bits >= 1.7:
        yield f"the weights alone take {_size(weights)}: a file of about {bits:.1f} bits a weight would fit here"
    else:
        yield f"the weights alone take {_size(weights)}: no quantization of this model fits in {_size(free)}"


def _unknown(picks: Sequence[Pick], floors: Floors) -> Iterator[str]:
    if floors.decode is not None and any(pick.full.decode is None for pick in picks):
        yield "the decode floor could not be checked: the memory bandwidth is unknown"


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 1 << 30 else f"{count / 2**20:.0f} MiB"

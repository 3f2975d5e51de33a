"""How much of a model goes to the GPUs: as much as surely fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.models.load import LoadSettings
    from velollm_core.models.pick import Scene


def offload(scene: Scene, load: LoadSettings) -> LoadSettings:
    """``load`` with the most layers on GPUs that surely fit there; routed experts give way before whole layers.

    Zero layers where there is no GPU, none fits, or none says what it has free.
    """
    load = evolve(load, gpu_layers=0, cpu_moe_layers=0)
    if not scene.gpus:
        return load
    everything = scene.spec.block_count + 1
    full = evolve(load, gpu_layers=everything)
    if _gpus_hold(scene, full):
        return full
    if any(layer.expert_bytes for layer in scene.spec.main_layers):
        kept = _least(lambda count: _gpus_hold(scene, evolve(full, cpu_moe_layers=count)), everything - 1)
        if kept is not None:
            return evolve(full, cpu_moe_layers=kept)
    left = _least(lambda count: _gpus_hold(scene, evolve(load, gpu_layers=everything - count)), everything - 1)
    return load if left is None else evolve(load, gpu_layers=everything - left)


def _gpus_hold(scene: Scene, load: LoadSettings) -> bool:
    found = scene.fit(load)
    return found is not None and all(each.verdict == "yes" for each in found.devices if each.device != "host")


def _least(holds: Callable[[int], bool], most: int) -> int | None:
    """The least count in 1..``most`` that ``holds``, which stays true once it is; None where even ``most`` does not."""
    if most < 1 or not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high

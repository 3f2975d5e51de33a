"""How much of a model goes to the GPUs: as much as surely fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from velollm_core.models.load import LoadSettings
    from velollm_core.models.pick import Scene


def offload(scene: Scene, load: LoadSettings, near: LoadSettings | None = None) -> LoadSettings:
    """``load`` with the most layers on GPUs that surely fit there; routed experts give way before whole layers.

    Zero layers where there is no GPU, none fits, or none says what it has free. ``near`` is an answer for similar
    settings, where the search begins.
    """
    load = evolve(load, gpu_layers=0, cpu_moe_layers=0)
    if not scene.gpus:
        return load
    everything = scene.spec.block_count + 1
    full = evolve(load, gpu_layers=everything)
    if _gpus_hold(scene, full):
        return full
    if any(layer.expert_bytes for layer in scene.spec.main_layers):
        start = near.cpu_moe_layers if near else 0
        kept = _least(lambda count: _gpus_hold(scene, evolve(full, cpu_moe_layers=count)), everything - 1, start)
        if kept is not None:
            return evolve(full, cpu_moe_layers=kept)
    start = everything - near.gpu_layers if near else 0
    left = _least(lambda count: _gpus_hold(scene, evolve(load, gpu_layers=everything - count)), everything - 1, start)
    return load if left is None else evolve(load, gpu_layers=everything - left)


def _gpus_hold(scene: Scene, load: LoadSettings) -> bool:
    found = scene.fit(load)
    return found is not None and all(each.verdict == "yes" for each in found.devices if each.device != "host")


def _least(holds: Callable[[int], bool], most: int, start: int) -> int | None:
    """The least count in 1..``most`` that ``holds``, which stays true once it is; None where even ``most`` does not.

    The search doubles its steps away from ``start``, then halves what is left.
    """
    low, high, step = 0, most + 1, 1
    probe = min(max(start, 1), most)
    while high - low > 1:
        if holds(probe):
            high, probe = probe, max((low + probe) // 2, probe - step)
        else:
            low, probe = probe, min((probe + high + 1) // 2, probe + step)
        step *= 2
    return high if high <= most else None

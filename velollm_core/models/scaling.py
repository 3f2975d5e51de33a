"""Carry what the engine's allocator said of some settings over to others, which only the formula has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.figures import Bytes, Interval

if TYPE_CHECKING:
    from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown

_COMPONENTS = ("weights", "kv", "recurrent", "compute", "output")
# The log's rounding, and less than anybody needs to know.
_AGREES = 0.002
# How far the ratio at one setting may be off at another.
_DOUBT = 0.15


@frozen
class Scaling:
    """Engine's bytes over the formula's, by component; 1 where the two agree."""

    weights: float = 1.0
    kv: float = 1.0
    recurrent: float = 1.0
    compute: float = 1.0
    output: float = 1.0

    @classmethod
    def between(cls, formula: MemoryBreakdown, engine: MemoryBreakdown) -> Scaling:
        """The ratios at the settings that both have seen, summed over devices."""
        ratios = {}
        for name in _COMPONENTS:
            ours, theirs = _sum(formula, name), _sum(engine, name)
            ratio = theirs / ours if ours and theirs else 1.0
            ratios[name] = ratio if abs(ratio - 1) > _AGREES else 1.0
        return cls(**ratios)

    def moves(self, scratch: float, negligible: float) -> bool:
        """Whether picks made by formula must be made again: a rule was unknown, or scratch memory matters.

        ``scratch`` is the part of the free memory that scratch takes by formula, ``negligible`` the part that moves
        nothing.
        """
        return self.weights * self.kv * self.recurrent != 1.0 or scratch * abs(self.compute - 1) > negligible

    def apply(self, memory: MemoryBreakdown) -> MemoryBreakdown:
        """``memory`` by formula, moved by the ratios; what is moved becomes an interval."""
        return evolve(memory, devices=tuple(self._device(device) for device in memory.devices))

    def _device(self, device: DeviceMemory) -> DeviceMemory:
        return evolve(
            device,
            weights=_moved(device.weights, self.weights),
            kv=_moved(device.kv, self.kv),
            recurrent=_moved(device.recurrent, self.recurrent),
            compute=_moved(device.compute, self.compute),
            output=_moved(device.output, self.output),
        )


AS_BY_FORMULA = Scaling()


def _moved(figure: Bytes, ratio: float) -> Bytes:
    if ratio == 1.0 or not figure.value:
        return figure
    value = round(figure.value * ratio)
    return Bytes(value, figure.basis, Interval(int(value * (1 - _DOUBT)), int(value * (1 + _DOUBT))))


def _sum(memory: MemoryBreakdown, name: str) -> int:
    return sum(device.components[name].value for device in memory.devices)

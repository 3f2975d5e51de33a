"""Whether a model fits in what is free now, with the arithmetic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import evolve, frozen

from velollm_core.models.devices import HOST, Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown

Verdict = Literal["yes", "maybe", "no", "unknown"]


@frozen
class DeviceFit:
    """One device: bytes needed (least, central, most) against bytes ``free``, and the arithmetic as one line."""

    device: str
    need_low: int
    need: int
    need_high: int
    free: int | None
    verdict: Verdict
    reason: str

    @property
    def missing(self) -> int:
        """Bytes by which the most it can need exceeds what is free; 0 where it fits or nothing says."""
        return max(0, self.need_high - self.free) if self.free is not None else 0


@frozen
class Fit:
    """``yes``: even the most it can need is free on every device; ``no``: on one even the least is not.

    ``maybe`` is between the two, ``unknown`` where a device does not say what it has free.
    """

    verdict: Verdict
    devices: tuple[DeviceFit, ...]

    @property
    def missing(self) -> int:
        """Bytes that must be found, over all devices, for a sure yes."""
        return sum(device.missing for device in self.devices)

    @property
    def reason(self) -> str:
        """The line of the device that decides."""
        return next(device.reason for device in self.devices if device.verdict == self.verdict)

    @property
    def sure(self) -> bool | None:
        """True for yes, False for no, None for the rest: as a `Plan` says it."""
        return {"yes": True, "no": False}.get(self.verdict)


# Worst first: the verdict of a fit is that of its worst device.
_WORST: tuple[Verdict, ...] = ("no", "unknown", "maybe", "yes")


def fit(memory: MemoryBreakdown, devices: Sequence[Device]) -> Fit:
    """Compare ``memory`` with what each of ``devices`` has free; a GPU that shares main memory counts there too."""
    by_name = {device.name: device for device in devices}
    shared = [part for part in memory.devices if part.device in by_name and by_name[part.device].shared]
    found = tuple(
        _judge(part, by_name.get(part.device), shared if part.device == HOST else ()) for part in memory.devices
    )
    verdict = next(each for each in _WORST if any(device.verdict == each for device in found))
    return Fit(verdict, found)


def with_overhead(memory: MemoryBreakdown, devices: Sequence[Device]) -> MemoryBreakdown:
    """``memory`` with what driver and engine take besides, by the kind of device, unless somebody measured it."""
    by_name = {device.name: device for device in devices}
    return evolve(memory, devices=tuple(_with_overhead(part, by_name.get(part.device)) for part in memory.devices))


def _with_overhead(part: DeviceMemory, device: Device | None) -> DeviceMemory:
    if device is None or part.overhead.basis in ("measured", "allocator"):
        return part
    return evolve(part, overhead=device.overhead)


def _judge(part: DeviceMemory, device: Device | None, sharing: Sequence[DeviceMemory]) -> DeviceFit:
    parts = [part, *sharing]
    low, need, high = (sum(getattr(each, end) for each in parts) for end in ("low", "total", "high"))
    if device is None:
        return DeviceFit(part.device, low, need, high, None, "no", f"{part.device}: there is no such device here")
    free = device.free
    if free is None:
        reason = f"{part.device}: needs {_range(low, high)}; {device.reason}"
        return DeviceFit(part.device, low, need, high, None, "unknown", reason)
    verdict: Verdict = "yes" if high <= free else "no" if low > free else "maybe"
    sign = {"yes": "≤", "no": ">", "maybe": "about"}[verdict]
    also = f" with {', '.join(each.device for each in sharing)}, which shares it" if sharing else ""
    reason = f"{part.device}{also}: {_range(low, high)} {sign} {_gib(free)} ({device.reason})"
    if verdict != "yes":
        reason += f"; {_gib(high - free)} short of a sure fit"
    return DeviceFit(part.device, low, need, high, free, verdict, reason)


def _range(low: int, high: int) -> str:
    least, most = _gib(low), _gib(high)
    if least == most:
        return most
    return f"{least.split()[0]}–{most}" if least.split()[1] == most.split()[1] else f"{least}–{most}"


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if abs(count) >= 2**30 else f"{count / 2**20:.0f} MiB"

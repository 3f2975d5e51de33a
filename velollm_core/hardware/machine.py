"""The whole machine as one value."""

from __future__ import annotations

from attrs import frozen

from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.gpu import Gpu
from velollm_core.hardware.memory import Memory


@frozen
class Platform:
    """The operating system: ``system`` as `platform.system()`, ``container`` True inside one, None where unknown."""

    system: str
    release: str | None
    machine: str
    distribution: str | None = None
    container: bool | None = None
    virtual_machine: bool | None = None


@frozen
class Hardware:
    """What a plan is made for. ``notes`` are one line each: what could not be read, and why."""

    platform: Platform
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def visible_gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that a program started from here would see."""
        return tuple(gpu for gpu in self.gpus if gpu.visible)

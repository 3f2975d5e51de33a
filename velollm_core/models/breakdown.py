"""The bytes a loaded model takes, per device and component, each with its source."""

from __future__ import annotations

from attrs import fields, frozen

from velollm_core.figures import Bytes


@frozen
class DeviceMemory:
    """What one device holds. ``device`` is ``host`` or ``gpu0``, ``gpu1``, …

    ``weights`` counts tensor bytes as loaded, ``kv`` the attention cache, ``recurrent`` the state of recurrent layers,
    ``compute`` the scratch of a step, ``output`` the logits, ``overhead`` what the engine and driver take besides.
    """

    device: str
    weights: Bytes
    kv: Bytes
    recurrent: Bytes
    compute: Bytes
    output: Bytes
    overhead: Bytes

    @property
    def components(self) -> dict[str, Bytes]:
        """The six figures by name, in the order they are shown."""
        return {field.name: getattr(self, field.name) for field in fields(DeviceMemory) if field.name != "device"}

    @property
    def total(self) -> int:
        """The sum of the central figures, bytes."""
        return sum(part.value for part in self.components.values())

    @property
    def low(self) -> int:
        """The sum of the least each component can be, bytes."""
        return sum(part.low for part in self.components.values())

    @property
    def high(self) -> int:
        """The sum of the most each component can be, bytes."""
        return sum(part.high for part in self.components.values())


@frozen
class MemoryBreakdown:
    """What a model takes with one set of `LoadSettings`; ``notes`` say where the sources disagree.

    ``context``, ``context_per_sequence``, ``batch`` and ``ubatch`` are the tokens that the engine will really use
    after its own padding and clamping; ``sequences`` the slots.
    """

    devices: tuple[DeviceMemory, ...]
    context: int
    context_per_sequence: int
    sequences: int
    batch: int
    ubatch: int
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Bytes over all devices, central figures."""
        return sum(device.total for device in self.devices)

    def device(self, name: str) -> DeviceMemory | None:
        """The share of the device called ``name``."""
        return next((device for device in self.devices if device.device == name), None)

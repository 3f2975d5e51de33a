"""One breakdown out of two: the formula's exact bytes where the engine's own allocator confirms them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.models.breakdown import DeviceMemory

if TYPE_CHECKING:
    from velollm_core.figures import Bytes
    from velollm_core.models.breakdown import MemoryBreakdown

CHECKED = ("weights", "kv", "recurrent")
"""What the formula claims to the byte. Compute and output are the allocator's to say, overhead is not its business."""

SHAPE = ("context", "context_per_sequence", "sequences", "batch", "ubatch")


def reconcile(formula: MemoryBreakdown, allocator: MemoryBreakdown) -> MemoryBreakdown:
    """Both answers to the same question as one; each figure names its source, ``notes`` say where the two disagree.

    The formula's figure stands where it lies within the allocator's rounding. Elsewhere the allocator's stands.
    """
    notes = [*formula.notes, *allocator.notes]
    devices = []
    for known in allocator.devices:
        computed = formula.device(known.device)
        devices.append(known if computed is None else _reconciled(computed, known, notes))
    for computed in formula.devices:
        if allocator.device(computed.device) is None:
            devices.append(computed)
            notes.append(f"{computed.device}: by formula alone, the allocator does not know this device")
    for name in SHAPE:
        asked, used = getattr(formula, name), getattr(allocator, name)
        if asked != used:
            notes.append(f"{name.replace('_', ' ')}: the engine uses {used}, the formula says {asked}")
    return evolve(allocator, devices=tuple(devices), notes=tuple(dict.fromkeys(notes)))


def _reconciled(computed: DeviceMemory, known: DeviceMemory, notes: list[str]) -> DeviceMemory:
    standing = {"overhead": computed.overhead}
    for name in CHECKED:
        ours, theirs = computed.components[name], known.components[name]
        if theirs.low <= ours.value <= theirs.high:
            standing[name] = ours
        else:
            notes.append(_disagreement(known.device, name, ours, theirs))
    return DeviceMemory(known.device, **{**known.components, **standing})


def _disagreement(device: str, name: str, ours: Bytes, theirs: Bytes) -> str:
    found = f"{theirs.value}" if theirs.interval is None else f"{theirs.low} to {theirs.high}"
    return (
        f"{name} on {device}: {found} bytes by the engine's allocator, {ours.value} by formula: "
        "this architecture has a rule that the formula does not know; the allocator's figure stands"
    )

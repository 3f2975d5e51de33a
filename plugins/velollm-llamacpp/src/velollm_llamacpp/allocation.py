"""From the measuring child's answer to a `MemoryBreakdown`: pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import evolve, frozen

from velollm_core.figures import Bytes, Interval
from velollm_core.models.breakdown import DeviceMemory, MemoryBreakdown

if TYPE_CHECKING:
    from velollm_core.models.load import LoadSettings

MIB = 1 << 20
ROUNDING = 0.005 * MIB
"""Half of the last digit that llama.cpp's log shows."""

HOST = "host"
AUTO_SLOTS = 4
LOGIT_BYTES = 4
NOTHING = Bytes(0, "allocator")
UNSPLIT = "llama.cpp does not tell cache and recurrent state of this architecture apart: both stand under KV"
FROM_LOG = "this platform's llama.cpp gives only its log's figures, rounded to 0.01 MiB; weights are the file's tensors"

_CACHE = re.compile(r"^llama_(?P<kind>kv_cache|memory_recurrent|dsv4)\w*:.*(?<!buffer) size = +(?P<size>[\d.]+) MiB")
_COMPUTE = re.compile(r": +(?P<name>\S+) compute buffer size = +(?P<size>[\d.]+) MiB")


@frozen
class DeviceSums:
    """Bytes on one device: ``cache`` holds KV and recurrent state together."""

    device: str
    model: int = 0
    cache: int = 0
    compute: int = 0


@frozen
class Logged:
    """What the log says: MiB of each KV cache, of each recurrent state, and of the compute buffers of the host."""

    kv: tuple[float, ...]
    recurrent: tuple[float, ...]
    compute: tuple[float, ...]


def explicit(load: LoadSettings) -> LoadSettings:
    """``load`` as llama-server would fill it in: its own choice is four slots that share one cache."""
    if load.parallel is None:
        return evolve(load, parallel=AUTO_SLOTS, kv_unified=True)
    return evolve(load, kv_unified=bool(load.kv_unified))


def breakdown(answer: Mapping[str, Any], slots: int, file_weights: int) -> MemoryBreakdown:
    """The memory that ``answer`` reports for ``slots`` sequences.

    Exact where the library gave its own sums and its log confirms them; otherwise the log's figures with their
    rounding, and ``file_weights`` for the weights, which that log leaves out.
    """
    log = read_log(answer["log"])
    output = Bytes(slots * int(answer["vocabulary"]) * LOGIT_BYTES, "allocator")
    sums = device_sums(answer["buffers"] or ())
    if answer["buffers"] and confirmed(sums, log):
        devices, notes = _exact(sums, log, answer["probes"])
    else:
        devices, notes = (_rounded_device(log, file_weights),), (FROM_LOG,)
    return MemoryBreakdown(
        devices=(evolve(devices[0], output=output), *devices[1:]),
        context=answer["context"],
        context_per_sequence=answer["context_per_sequence"],
        sequences=slots,
        batch=answer["batch"],
        ubatch=answer["ubatch"],
        notes=notes,
    )


def read_log(lines: Iterable[str]) -> Logged:
    """The figures of the log's lines."""
    kv: list[float] = []
    recurrent: list[float] = []
    compute: list[float] = []
    for line in lines:
        if match := _CACHE.match(line):
            (kv if match["kind"] == "kv_cache" else recurrent).append(float(match["size"]))
        elif match := _COMPUTE.search(line):
            compute.append(float(match["size"]))
    return Logged(tuple(kv), tuple(recurrent), tuple(compute))


def device_sums(buffers: Iterable[Sequence[Any]]) -> tuple[DeviceSums, ...]:
    """One entry a device, the host first: every kind of host memory counts there."""
    sums = {HOST: DeviceSums(HOST)}
    for name, host, model, cache, compute in buffers:
        device = HOST if host else f"gpu{(re.findall('[0-9]+', name) or ['0'])[0]}"
        have = sums.get(device, DeviceSums(device))
        sums[device] = DeviceSums(device, have.model + model, have.cache + cache, have.compute + compute)
    return tuple(sorted(sums.values(), key=lambda each: each.device != HOST))


def confirmed(sums: Sequence[DeviceSums], log: Logged) -> bool:
    """Whether the caches of ``sums`` agree with the log within its rounding."""
    sizes = (*log.kv, *log.recurrent)
    return abs(sum(each.cache for each in sums) - sum(sizes) * MIB) <= ROUNDING * len(sizes) + 1


def recurrent_bytes(log: Logged, probes: Sequence[Sequence[Sequence[Any]] | None]) -> dict[str, int] | None:
    """Recurrent state on each device, from two probes of which the second has a cache twice as large.

    None where the probes are missing, or contradict the log.
    """
    if len(probes) != 2 or probes[0] is None or probes[1] is None:
        return None
    single, double = (device_sums(probe) for probe in probes if probe is not None)
    found = {one.device: 2 * one.cache - two.cache for one, two in zip(single, double, strict=True)}
    doubt = ROUNDING * len(log.recurrent) + 1
    return found if abs(sum(found.values()) - sum(log.recurrent) * MIB) <= doubt else None


def _exact(
    sums: Sequence[DeviceSums], log: Logged, probes: Sequence[Sequence[Sequence[Any]] | None]
) -> tuple[tuple[DeviceMemory, ...], tuple[str, ...]]:
    states: dict[str, int] | None = {}
    if log.recurrent and log.kv:
        states = recurrent_bytes(log, probes)
    elif log.recurrent:
        states = {each.device: each.cache for each in sums}
    devices = tuple(_exact_device(each, (states or {}).get(each.device, 0)) for each in sums)
    return devices, (UNSPLIT,) if states is None else ()


def _exact_device(sums: DeviceSums, state: int) -> DeviceMemory:
    return DeviceMemory(
        device=sums.device,
        weights=Bytes(sums.model, "allocator"),
        kv=Bytes(sums.cache - state, "allocator"),
        recurrent=Bytes(state, "allocator"),
        compute=Bytes(sums.compute, "allocator"),
        output=NOTHING,
        overhead=NOTHING,
    )


def _rounded_device(log: Logged, file_weights: int) -> DeviceMemory:
    return DeviceMemory(
        device=HOST,
        weights=Bytes(file_weights, "formula"),
        kv=_rounded(log.kv),
        recurrent=_rounded(log.recurrent),
        compute=_rounded(log.compute),
        output=NOTHING,
        overhead=NOTHING,
    )


def _rounded(sizes: Sequence[float]) -> Bytes:
    if not sizes:
        return NOTHING
    central, doubt = sum(sizes) * MIB, ROUNDING * len(sizes)
    interval = Interval(max(0, math.floor(central - doubt)), math.ceil(central + doubt))
    return Bytes(round(central), "allocator", interval)

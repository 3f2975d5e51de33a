"""The speeds that no placement of a model on this machine can pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.benchmark.conditions import Sources
from velollm_core.models.devices import HOST, devices
from velollm_core.models.load import LoadSettings
from velollm_core.models.placement import place
from velollm_core.models.traffic import traffic

if TYPE_CHECKING:
    from pathlib import Path

    from velollm_core.figures import Rate
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec

GPU_FORMATS, CPU_FORMATS = 4, 32
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@frozen
class Ceiling:
    """``rate`` in tokens a second for one sequence; None where it is not known, and ``basis`` says why."""

    rate: float | None
    basis: str


def decode_ceiling(
    spec: ModelSpec, hardware: Hardware, depth: int, *, type_k: str = "f16", type_v: str = "f16"
) -> Ceiling:
    """Bytes a token must read with ``depth`` tokens cached, over all bandwidth that this machine has.

    What fits a processor's cache need not be read from memory at all, so there no ceiling is known.
    """
    load = LoadSettings(total_context=max(depth, 1), type_k=type_k, type_v=type_v)
    needed = sum(moved.bytes for moved in traffic(spec, load, place(spec, load), depth=depth))
    found = devices(hardware)
    gpus = [device for device in found if device.name != HOST]
    rates = [device.bandwidth for device in (gpus or found)]
    if any(rate is None for rate in rates) or needed <= 0:
        return Ceiling(None, "the memory bandwidth is unknown")
    cache = last_level_cache() if not gpus else 0
    if needed < cache:
        return Ceiling(None, f"{needed / 2**20:.0f} MiB a token fit the processor's {cache / 2**20:.0f} MiB of cache")
    total = sum(_highest(rate) for rate in rates if rate)
    basis = f"{needed / 2**20:.0f} MiB a token at {total / 1e9:.0f} GB/s, depth {depth}"
    return Ceiling(total / needed, basis)


def prefill_ceiling(spec: ModelSpec, hardware: Hardware, prompt: int) -> Ceiling:
    """Operations that each of ``prompt`` tokens takes, over all that this machine can do in its fastest format.

    That is four times the rate of 16 bits on a GPU (4 bits), and 32 times that of vector registers on a processor (8
    bits in tile registers, AMX). Generous, since the figure is for telling a cache from a computation.
    """
    load = LoadSettings(total_context=max(prompt, 1))
    needed = sum(moved.flops for moved in traffic(spec, load, place(spec, load), depth=0, tokens=prompt)) / prompt
    found = devices(hardware)
    gpus = [device for device in found if device.name != HOST]
    rates = [device.flops for device in (gpus or found)]
    if any(rate is None for rate in rates) or needed <= 0:
        return Ceiling(None, "what this machine can compute is unknown")
    total = (GPU_FORMATS if gpus else CPU_FORMATS) * sum(_highest(rate) for rate in rates if rate)
    return Ceiling(total / needed, f"{needed / 1e9:.3g} Gflop a token at {total / 1e12:.3g} Tflop/s in any format")


def last_level_cache(sources: Sources | None = None) -> int:
    """Bytes of the largest cache of the first processor; 64 MiB where the system does not say."""
    root: Path = (sources or Sources()).sys / "devices/system/cpu/cpu0/cache"
    sizes = [_bytes(path.read_text(encoding="utf-8").strip()) for path in root.glob("index*/size")]
    return max(sizes, default=64 * 2**20)


def _highest(rate: Rate) -> float:
    return rate.interval.high if rate.interval else rate.value


def _bytes(text: str) -> int:
    number, unit = text.rstrip("KMG"), text[-1:]
    return int(number) * _UNITS.get(unit, 1) if number.isdigit() else 0

"""Each setting of a plan with its reason, in the numbers of this model and machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import evolve

from velollm_core.backends.setting import Evidence, Setting, Value
from velollm_core.errors import ModelRefused
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory

if TYPE_CHECKING:
    from velollm_core.hardware.cpu import Cpu
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.pick import Pick
    from velollm_core.models.spec import ModelSpec
    from velollm_llamacpp.need import Need

MIB = 1 << 20
DEFAULT_CACHE_RAM = 8192
"""MiB of main memory that llama-server's prompt cache may take unless told otherwise."""


def settings(pick: Pick, wanted: Need, model: ModelSpec, hardware: Hardware) -> Iterator[Setting]:
    """All settings of ``pick``; none is left to what a server happens to default to."""
    yield from _context(pick, wanted, model)
    yield from _cache(pick, model)
    yield from _batches(pick)
    yield from _threads(hardware.cpu)
    yield from _placement(pick, model, hardware)
    yield from _memory(pick, hardware)


def _context(pick: Pick, wanted: Need, model: ModelSpec) -> Iterator[Setting]:
    load, slots = pick.load, pick.slots
    each = f", for each of {slots} requests at a time" if slots > 1 else ""
    yield _flag("--ctx-size", load.total_context, f"{wanted.reason}{each}{_saved(pick, model)}", "rule")
    one = "one request at a time: every further slot would take its share of the cache"
    many = f"{slots} requests at a time were asked for"
    yield _flag("--parallel", slots, many if slots > 1 else one, "rule")
    split = f"each slot is sure of its {wanted.tokens} tokens; in a shared cache a long request can end the others"
    yield _flag("--kv-unified", False, split if slots > 1 else "a single slot has nobody to share with", "rule")


def _saved(pick: Pick, model: ModelSpec) -> str:
    """What the server's own choice, the whole trained context, would take instead."""
    default = LoadSettings(total_context=model.context_length, parallel=None)
    try:
        theirs = sum(device.kv.value for device in memory(model, default).devices)
    except ModelRefused:
        return ""
    ours = sum(device.kv.value for device in pick.memory.devices)
    if theirs <= ours:
        return ""
    return f"; the server's own choice, {model.context_length}, would cache {_size(theirs)} instead of {_size(ours)}"


def _cache(pick: Pick, model: ModelSpec) -> Iterator[Setting]:
    load = pick.load
    quantized = load.type_k != "f16"
    wide = evolve(load, type_k="f16", type_v="f16")
    saved = sum(device.kv.value for device in memory(model, wide).devices) - sum(
        device.kv.value for device in pick.memory.devices
    )
    fits = "16 bit keep all quality, and they fit"
    short = f"with 16 bit it would not fit; 8 bit are close to lossless and save {_size(saved)}"
    evidence: Evidence = "predicted" if quantized else "default"
    yield _flag("--cache-type-k", load.type_k, short if quantized else fits, evidence)
    yield _flag("--cache-type-v", load.type_v, short if load.type_v != "f16" else fits, evidence)
    if load.flash_attn == "on":
        yield _flag("--flash-attn", "on", "a quantized V cache needs it", "rule")
    else:
        reason = "on where llama.cpp can; on CPUs it speeds up long prompts and can slow decoding: only measuring tells"
        yield _flag("--flash-attn", load.flash_attn, reason, "default")


def _batches(pick: Pick) -> Iterator[Setting]:
    load = pick.load
    clamped = f"no more than the {load.total_context} tokens of cache"
    yield _flag("--batch-size", load.batch, clamped if load.batch < 2048 else "the server's own; it fits", "default")
    compute = sum(device.compute.value for device in pick.memory.devices)
    if load.ubatch < min(512, load.total_context):
        yield _flag("--ubatch-size", load.ubatch, f"scratch memory grows with it: {_size(compute)} here", "predicted")
    else:
        reason = f"scratch of about {_size(compute)} fits; larger ones help on GPUs with long prompts, if measured so"
        yield _flag("--ubatch-size", load.ubatch, reason, "default")


def _threads(cpu: Cpu) -> Iterator[Setting]:
    cores = cpu.usable_cores
    physical = f"{cpu.physical_cores} physical" if cpu.physical_cores else f"{cpu.threads or 'unknown'} logical"
    limit = f", {cpu.quota:g} cores' worth of time" if cpu.quota is not None else ""
    allowed = cpu.allowed_cores or cpu.allowed_threads
    reason = f"{physical} cores, {allowed or 'all'} of them allowed here{limit}: one thread a core to start with"
    yield _flag("--threads", cores, f"{reason}; hyper-threads rarely help", "rule")
    yield _flag("--threads-batch", cores, "as many for prompts", "rule")


def _placement(pick: Pick, model: ModelSpec, hardware: Hardware) -> Iterator[Setting]:
    load, layers = pick.load, len(model.main_layers) + 1
    if not hardware.visible_gpus:
        yield _flag("--n-gpu-layers", 0, "no GPU that this llama.cpp can use", "rule")
        return
    need = ", ".join(each.reason for each in pick.fit.devices if each.device != "host") or pick.fit.reason
    whole = f"all {layers} layers (the output is one of them) fit: {need}"
    part = f"as many of {layers} layers as surely fit: {need}"
    yield _flag("--n-gpu-layers", load.gpu_layers, whole if load.gpu_layers >= layers else part, "predicted")
    if load.cpu_moe_layers:
        held = sum(layer.expert_bytes for layer in model.main_layers[: load.cpu_moe_layers])
        used = f"a token uses {model.expert_used} of {model.expert_count} experts"
        reason = f"{_size(held)} of routed experts stay in main memory, where {used}; the rest then fits on the GPU"
        yield _flag("--n-cpu-moe", load.cpu_moe_layers, reason, "predicted")


def _memory(pick: Pick, hardware: Hardware) -> Iterator[Setting]:
    mapped = "weights are mapped: pages that are not in use can be given back, and a second start is quick"
    yield _flag("--load-mode", "mmap", mapped, "default")
    host = pick.memory.device("host")
    left = max(0, hardware.memory.available - (host.high if host else 0))
    cache = min(DEFAULT_CACHE_RAM, left // 2 // MIB)
    if cache < DEFAULT_CACHE_RAM:
        reason = (
            f"half of the {_size(left)} that stay free; the server would let old prompts take {DEFAULT_CACHE_RAM} MiB"
        )
        yield _flag("--cache-ram", cache, reason, "rule")
    else:
        yield _flag("--cache-ram", cache, f"{_size(left)} stay free: room for old prompts", "default")
    yield _flag("--fit", "off", "everything is said here; the server need not change it", "rule")


def _flag(name: str, value: Value, reason: str, evidence: Evidence) -> Setting:
    return Setting(name, value, "flag", reason, evidence)


def _size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if abs(count) >= 2**30 else f"{count / MIB:.1f} MiB"

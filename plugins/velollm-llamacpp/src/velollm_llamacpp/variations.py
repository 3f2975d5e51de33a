"""What may be varied about a plan for llama.cpp: no rule of thumb has survived here, so these are measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from velollm_core.backends.setting import Plan, Setting, Value
from velollm_core.backends.variation import Option, Variation
from velollm_llamacpp.settings import QUANTIZED

if TYPE_CHECKING:
    from velollm_core.hardware.cpu import Cpu
    from velollm_core.hardware.machine import Hardware

UBATCHES = (128, 512, 2048)
RACED = "raced against its alternatives on this machine"


def variations(plan: Plan, hardware: Hardware) -> tuple[Variation, ...]:
    """Threads, flash attention with the cache's types, tokens computed at a time, and the cache's division."""
    values = {setting.name: setting.value for setting in plan.settings}
    found = (
        Variation("threads", tuple(_threads(hardware.cpu))),
        Variation("attention", tuple(_attention(values.get("--cache-type-k"), values.get("--flash-attn")))),
        Variation("ubatch", tuple(_ubatches(values.get("--batch-size"), values.get("--ubatch-size")))),
        Variation("cache", tuple(_divisions(values.get("--parallel")))),
    )
    return tuple(each for each in found if len(each.options) > 1)


def _threads(cpu: Cpu) -> Iterator[Option]:
    cores = cpu.usable_cores
    logical = cpu.allowed_threads or cpu.threads or cores
    # Where memory is the limit half of the cores may do, and leave the caches to themselves.
    for count in sorted({cores, max(1, cores // 2), max(1, cores - 1), max(cores, logical)}):
        yield _option({"--threads": count, "--threads-batch": count})


def _attention(planned: Value, flash_planned: Value) -> Iterator[Option]:
    """Without flash attention a quantized V cache is refused; keys may be quantized either way."""
    if planned not in QUANTIZED:
        # The plan holds 16 bit where they fit: coarser ones are a trade to be measured, wider ones none to be made.
        # (auto is on wherever the backend can, so it need not be raced against itself.)
        for flash in ("off",) if flash_planned == "auto" else ("on", "off"):
            load: dict[str, Value] = {"flash_attn": flash, "type_k": "f16", "type_v": "f16"}
            yield _option({"--flash-attn": flash, "--cache-type-k": "f16", "--cache-type-v": "f16"}, load)
    for flash, key, value in (("on", "q8_0", "q8_0"), ("off", "q8_0", "f16")):
        load = {"flash_attn": flash, "type_k": key, "type_v": value}
        yield _option({"--flash-attn": flash, "--cache-type-k": key, "--cache-type-v": value}, load)


def _ubatches(batch: Value, planned: Value) -> Iterator[Option]:
    most = batch if isinstance(batch, int) else UBATCHES[-1]
    sizes = {min(size, most) for size in UBATCHES} | ({planned} if isinstance(planned, int) else set())
    for size in sorted(sizes):
        yield _option({"--ubatch-size": size}, {"ubatch": size})


def _divisions(slots: Value) -> Iterable[Option]:
    if not isinstance(slots, int) or slots < 2:
        return ()
    return [_option({"--kv-unified": unified}, {"kv_unified": unified}) for unified in (False, True)]


def _option(values: dict[str, Value], load: dict[str, Value] | None = None) -> Option:
    settings = tuple(Setting(name, value, "flag", RACED, "measured") for name, value in values.items())
    return Option(settings, load or {})

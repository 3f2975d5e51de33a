"""The part of a plan that goes into the server's environment, which holds for every model it serves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from velollm_core.backends.setting import Evidence as Proof
from velollm_core.backends.setting import Setting, Value
from velollm_core.models.devices import HOST
from velollm_ollama.automatic import GIB, MIB, PROMPT_CACHE
from velollm_ollama.kv_types import UNQUANTIZED, is_quantized
from velollm_ollama.read_back import in_force, read_settings_back
from velollm_ollama.settings import as_text
from velollm_ollama.wire import KEEP_ALIVE

if TYPE_CHECKING:
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.pick import Pick
    from velollm_ollama.facts import Facts

HOST_RESERVE: Final = GIB
"""Main memory left to everything else, bytes."""


def server_settings(
    pick: Pick, slots_reason: str, cache_reason: str, hardware: Hardware, facts: Facts
) -> Iterator[Setting]:
    """The variables, and the keep-alive that each request carries."""
    yield _env("OLLAMA_NUM_PARALLEL", pick.slots, slots_reason, facts)
    yield from _cache(pick, cache_reason, facts)
    limit = prompt_cache_limit(pick, hardware, facts)
    if limit is not None:
        reason = f"the prompt cache may take {PROMPT_CACHE // GIB} GiB of main memory a model, more than is left"
        yield _env("LLAMA_ARG_CACHE_RAM", limit // MIB, reason, facts)
    reason = "a reload costs seconds and loses the prompt cache; Ollama unloads after 5 minutes"
    yield Setting("keep_alive", KEEP_ALIVE, "request", reason, "rule")


def prompt_cache_limit(pick: Pick, hardware: Hardware, facts: Facts) -> int | None:
    """Bytes to bound the prompt cache to, in steps of 256 MiB; None where the default has room or there is none."""
    if facts.version.engine == "runners":
        return None
    host = pick.memory.device(HOST)
    left = hardware.memory.available - (host.high if host else 0) - HOST_RESERVE
    if left >= PROMPT_CACHE:
        return None
    return max(0, left // (256 * MIB)) * 256 * MIB


def _cache(pick: Pick, reason: str, facts: Facts) -> Iterator[Setting]:
    """Cache type and flash attention, where they differ from what Ollama does by itself or from what it was told."""
    now = read_settings_back(facts.evidence) if facts.evidence else {}
    kind = str(now.get("OLLAMA_KV_CACHE_TYPE") or "f16").lower()
    off = now.get("OLLAMA_FLASH_ATTENTION") is False
    if is_quantized(pick.load.type_k):
        yield _env("OLLAMA_KV_CACHE_TYPE", pick.load.type_k, reason, facts)
        yield _env("OLLAMA_FLASH_ATTENTION", True, "a quantized cache needs it", facts)
        return
    if kind not in UNQUANTIZED:
        yield _env("OLLAMA_KV_CACHE_TYPE", "f16", f"the server runs with {kind}; {reason}", facts)
    if off:
        yield _env("OLLAMA_FLASH_ATTENTION", True, "the server runs without it, which costs memory and speed", facts)


def _env(name: str, value: Value, reason: str, facts: Facts) -> Setting:
    proof: Proof = "rule"
    if facts.evidence is not None and in_force(name, as_text(value), facts.evidence):
        reason = f"{reason} (in force already)"
    return Setting(name, value, "env", reason, proof)

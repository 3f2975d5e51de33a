"""What a running server says it runs with, and where that differs from what it was asked for: pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value

PAD = 256
"""llama.cpp rounds every cache up to whole steps of so many cells."""

_COUNTS = {
    "--ctx-size": re.compile(r"^llama_context: n_ctx += (\d+)$"),
    "--batch-size": re.compile(r"^llama_context: n_batch += (\d+)$"),
    "--ubatch-size": re.compile(r"^llama_context: n_ubatch += (\d+)$"),
    "--threads": re.compile(r"system_info: n_threads = (\d+)"),
    "--threads-batch": re.compile(r"system_info: n_threads = \d+ \(n_threads_batch = (\d+)\)"),
    "--n-gpu-layers": re.compile(r"offloaded (\d+)/\d+ layers to GPU"),
    "--cache-ram": re.compile(r"prompt cache is enabled, size limit: (\d+) MiB"),
}
_TEXTS = {
    "--cache-type-k": re.compile(r"^llama_kv_cache: size = .* K \((\w+)\):"),
    "--cache-type-v": re.compile(r"^llama_kv_cache: size = .* V \((\w+)\):"),
    "--flash-attn": re.compile(r"^llama_context: flash_attn += (\w+)$"),
    "--kv-unified": re.compile(r"^llama_context: kv_unified += (true|false)$"),
    "--load-mode": re.compile(r"\(load_mode = ([\w+]+)\)"),
}
_SPELLED: Mapping[str, Value] = {"enabled": "on", "disabled": "off", "true": True, "false": False}


def reported(props: Mapping[str, Any], slots: Sequence[Mapping[str, Any]], log: Iterable[str]) -> dict[str, Value]:
    """Settings by name as ``/props``, ``/slots`` and, for a server of our own, its log tell them.

    What none of them tells is left out. The log's first mention counts: a draft's context comes after the model's.
    """
    found: dict[str, Value] = {}
    for line in log:
        for name, pattern in _COUNTS.items():
            if name not in found and (match := pattern.search(line)):
                found[name] = int(match[1])
        for name, pattern in _TEXTS.items():
            if name not in found and (match := pattern.search(line)):
                found[name] = _SPELLED.get(match[1], match[1])
    total = props.get("total_slots")
    if isinstance(total, int):
        found["--parallel"] = total
    if "--ctx-size" not in found and len(slots) == 1 and isinstance(slots[0].get("n_ctx"), int):
        # With more slots their size alone does not tell whether they share one cache.
        found["--ctx-size"] = slots[0]["n_ctx"]
    return found


def differences(asked: Mapping[str, Value], found: Mapping[str, Value]) -> list[str]:
    """One line for each setting that the server reports otherwise than ``asked``, its own rounding allowed for."""
    return [
        f"{name} was set to {value} and reads back as {found[name]}"
        for name, value in asked.items()
        if name in found and not _same(name, value, asked, found)
    ]


def _same(name: str, value: Value, asked: Mapping[str, Value], found: Mapping[str, Value]) -> bool:
    seen = found[name]
    if value in (-1, "auto") or seen == value:
        return True
    if not isinstance(value, int) or not isinstance(seen, int):
        return False
    if name == "--ctx-size":
        slots = int(found.get("--parallel") or 1)
        return value == 0 or value <= seen < value + PAD * (slots + 1)
    if name in ("--batch-size", "--ubatch-size"):
        return seen == min(value, _limit(name, asked, found))
    return name == "--n-gpu-layers" and seen < value


def _limit(name: str, asked: Mapping[str, Value], found: Mapping[str, Value]) -> int:
    """The most that a batch can be: the context as asked for; the micro-batch at most the batch."""
    context = int(asked.get("--ctx-size") or found.get("--ctx-size") or 0)
    return (
        min(context, int(found["--batch-size"] or 0))
        if name == "--ubatch-size" and "--batch-size" in found
        else context
    )

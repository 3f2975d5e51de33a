"""One load of a model, as the log tells it: the child's settings, the bytes it took, or why it failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, field, frozen

from velollm_ollama.child import Child, parse_command
from velollm_ollama.logfmt import fields, message

MIB: Final = 2**20

_BUFFER: Final = re.compile(r"^\w+:\s+(\S+)\s+(model|KV|RS|compute|output) buffer size =\s*([\d.]+) MiB")
_SLOTS: Final = re.compile(r"n_slots = (\d+), n_ctx_slot = (\d+), kv_unified = '(true|false)'")
_CACHE: Final = re.compile(r"prompt cache is enabled, size limit: (\d+) MiB")
_ATTENTION: Final = re.compile(
    r"Flash Attention (?:was auto, set to )?(enabled|disabled)|flash_attn\s+= (enabled|disabled)"
)
_CACHE_OFF: Final = "prompt cache is disabled"
_RUNNER: Final = re.compile(
    r"Parallel:(\d+) BatchSize:(\d+) FlashAttention:(\w+) KvSize:(\d+) KvCacheType:(\S*) NumThreads:(\d+)"
)


@frozen
class ModelLoad:
    """``buffers`` are bytes by device and part (``CPU KV``), as logged in MiB with two decimals.

    ``prompt_cache`` is the bound of the host's prompt cache, bytes. ``failure`` is None for a load that succeeded.
    """

    child: Child
    slots: int | None = None
    context_per_slot: int | None = None
    unified: bool | None = None
    flash_attention: bool | None = None
    prompt_cache: int | None = None
    buffers: Mapping[str, int] = field(factory=dict)
    failure: str | None = None


@define
class _Draft:
    child: Child
    facts: dict[str, int | bool | str] = field(factory=dict)
    buffers: dict[str, int] = field(factory=dict)

    def finish(self) -> ModelLoad:
        return ModelLoad(self.child, buffers=self.buffers, **self.facts)  # type: ignore[arg-type]


def read_loads(lines: Iterable[str]) -> tuple[ModelLoad, ...]:
    """Every load in ``lines``, in order: of a llama-server child, or of one of the runners before 0.30."""
    drafts: list[_Draft] = []
    for line in lines:
        said = message(line)
        if said == "starting llama-server":
            child = parse_command(fields(line).get("cmd", ""))
            drafts += [_Draft(child)] if child else []
        elif said == "load" and (child := _runner(line)):
            drafts.append(_Draft(child))
        elif drafts:
            _note(drafts[-1], line, said)
    return tuple(draft.finish() for draft in drafts)


def _note(draft: _Draft, line: str, said: str | None) -> None:
    facts = draft.facts
    if said == "Load failed":
        facts["failure"] = facts.get("failure") or fields(line).get("error", "").partition("\n")[0]
    elif line.startswith("error while handling argument"):
        facts["failure"] = line.strip()
    elif match := _BUFFER.match(line):
        part = f"{match[1]} {match[2]}"
        draft.buffers[part] = draft.buffers.get(part, 0) + int(float(match[3]) * MIB)
    elif match := _SLOTS.search(line):
        facts["slots"], facts["context_per_slot"] = int(match[1]), int(match[2])
        facts["unified"] = match[3] == "true"
    elif match := _CACHE.search(line):
        facts["prompt_cache"] = int(match[1]) * MIB
    elif _CACHE_OFF in line:
        facts["prompt_cache"] = 0
    elif match := _ATTENTION.search(line):
        facts["flash_attention"] = "enabled" in (match[1], match[2])


def _runner(line: str) -> Child | None:
    """A load by a runner before 0.30, whose settings come as one printed structure; KvSize counts all slots."""
    match = _RUNNER.search(fields(line).get("request", ""))
    if match is None:
        return None
    kind = match[5] or "f16"
    attention = {"enabled": "on", "true": "on", "disabled": "off", "false": "off"}.get(match[3].lower(), "auto")
    return Child(
        model="",
        context=int(match[4]),
        slots=int(match[1]),
        type_k=kind,
        type_v=kind,
        flash_attention=attention,
        batch=int(match[2]),
        ubatch=int(match[2]),
        threads=int(match[6]) or None,
    )

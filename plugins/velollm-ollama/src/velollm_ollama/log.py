"""Ollama's server log: what the server made of its settings, and how it loaded each model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import field, frozen

from velollm_ollama.load import ModelLoad, read_loads
from velollm_ollama.logfmt import fields, message
from velollm_ollama.version import Version, parse_version

_START: Final = "server config"
_BAD_VALUE: Final = "invalid environment variable, using default"
_NAME: Final = re.compile(
    r"(?:^| )((?:OLLAMA|LLAMA_ARG)_[A-Z0-9_]+|[A-Z]+_(?:VK_)?VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
    r"|HSA_OVERRIDE_GFX_VERSION|(?:HTTPS?|NO)_PROXY|(?:https?|no)_proxy):"
)
_LISTENING: Final = re.compile(r"Listening on (\S+) \(version ([^)]+)\)")


@frozen
class BadValue:
    """A value that the server did not take, and the default that it uses instead."""

    name: str
    value: str
    default: str


@frozen
class ServerLog:
    """The last start in a log and everything after it.

    ``values`` are the settings as the server read them. ``default_context`` is the context that the GPUs' memory gave,
    tokens. ``devices`` are the lines on what it computes with.
    """

    version: Version | None = None
    address: str | None = None
    values: Mapping[str, str] = field(factory=dict)
    warnings: tuple[BadValue, ...] = ()
    default_context: int | None = None
    devices: tuple[Mapping[str, str], ...] = ()
    loads: tuple[ModelLoad, ...] = ()


def read_log(text: str) -> ServerLog:
    """The last start in ``text``, an empty `ServerLog` where there is none; lines not understood are skipped."""
    lines = _last_start(text.splitlines())
    values: dict[str, str] = {}
    version, address, context = None, None, None
    devices: list[Mapping[str, str]] = []
    for line in lines:
        said = message(line)
        if said == _START and not values:
            values = split_map(fields(line).get("env", ""))
        elif said is not None and (listening := _LISTENING.match(said)):
            address, version = listening[1], parse_version(listening[2])
        elif said == "inference compute":
            devices.append(fields(line))
        elif said == "vram-based default context":
            context = _number(fields(line).get("default_num_ctx"))
    return ServerLog(version, address, values, _bad_values(lines), context, tuple(devices), read_loads(lines))


def split_map(text: str) -> dict[str, str]:
    """Go's ``map[NAME:value NAME:value]``: values may hold spaces and colons, so only known kinds of name split it."""
    inner = text.removeprefix("map[").removesuffix("]")
    marks = list(_NAME.finditer(inner))
    ends = [*(mark.start() for mark in marks[1:]), len(inner)]
    return {mark[1]: inner[mark.end() : end] for mark, end in zip(marks, ends, strict=False)}


def _last_start(lines: list[str]) -> list[str]:
    """From the last start on, with the warnings that came just before it: they are printed while settings are read."""
    starts = [index for index, line in enumerate(lines) if f'msg="{_START}"' in line]
    if not starts:
        return []
    first = starts[-1]
    while first and (_BAD_VALUE in lines[first - 1]):
        first -= 1
    return lines[first:]


def _bad_values(lines: list[str]) -> tuple[BadValue, ...]:
    found: dict[str, BadValue] = {}
    for line in lines:
        if _BAD_VALUE in line:
            said = fields(line)
            if "key" in said and "stderr" not in said:
                found.setdefault(said["key"], BadValue(said["key"], said.get("value", ""), said.get("default", "")))
    return tuple(found.values())


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None

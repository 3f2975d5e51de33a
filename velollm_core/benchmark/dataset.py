"""Recorded requests: prompts, chats, ShareGPT conversations and traces with timestamps, as JSON or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from velollm_core.backends.request import Message
from velollm_core.benchmark.load import Entry
from velollm_core.benchmark.prompts import filler
from velollm_core.errors import VeloError

MOST_BYTES = 2**30
CHARACTERS_A_TOKEN = 4
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@frozen
class Dataset:
    """``entries`` in the file's order; ``times`` are their seconds from the first, empty where the file has none."""

    entries: tuple[Entry, ...]
    times: tuple[float, ...]


def read_dataset(path: Path) -> Dataset:
    """Read ``path``: a JSON array or one object a line.

    An object is ``{"prompt": …}``, ``{"messages": [{"role", "content"}]}``, ShareGPT's ``{"conversations":
    [{"from", "value"}]}`` (up to the last human turn, the answer's length being that of the recorded one), or a trace's
    ``{"input_length": tokens, "output_length": tokens}``. ``max_tokens`` bounds an answer, ``timestamp`` (milliseconds,
    as traces have it) or ``at`` (seconds) tells when it came. Objects that ask nothing are passed over.

    Raises:
        VeloError: it cannot be read, or holds no request; the text names the entry.
    """
    entries, times = [], []
    for number, fields in enumerate(_objects(path), 1):
        try:
            entry = _entry(fields)
            time = _time(fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise VeloError(f"{path}: entry {number} is no request ({error!r:.100})") from error
        if entry is not None:
            entries.append(entry)
            times.append(time)
    if not entries:
        raise VeloError(f"{path}: holds no requests; an entry is an object with prompt, messages or conversations")
    known = [time for time in times if time is not None]
    if len(known) < len(entries):
        return Dataset(tuple(entries), ())
    first = min(known)
    return Dataset(tuple(entries), tuple(time - first for time in known))


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise VeloError(f"{path}: is larger than 1 GiB; take a part of it")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise VeloError(f"{path}: cannot be read ({error})") from error
    try:
        if text.lstrip().startswith("["):
            values = json.loads(text)
        else:
            values = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise VeloError(f"{path}: is neither JSON nor JSON lines ({error!s:.100})") from error
    yield from values


def _entry(fields: dict[str, Any]) -> Entry | None:
    limit = fields.get("max_tokens", fields.get("output_length"))
    tokens = None if limit is None else max(1, int(limit))
    if "prompt" in fields:
        return Entry(prompt=_text(fields["prompt"]), max_tokens=tokens)
    if "messages" in fields:
        messages = tuple(Message(ROLES[each["role"]], _text(each["content"])) for each in fields["messages"])
        return Entry(messages=messages, max_tokens=tokens) if messages else None
    if "conversations" in fields:
        return _conversation([(ROLES[each["from"]], _text(each["value"])) for each in fields["conversations"]], tokens)
    words = filler(int(fields["input_length"]) * CHARACTERS_A_TOKEN, int(fields["input_length"]))
    return Entry(prompt=words, max_tokens=tokens)


def _conversation(turns: list[tuple[str, str]], tokens: int | None) -> Entry | None:
    asked = [place for place, (role, text) in enumerate(turns) if role == "user" and text]
    if not asked:
        return None
    last = asked[-1]
    answer = turns[last + 1][1] if last + 1 < len(turns) else ""
    if tokens is None and answer:
        tokens = max(1, len(answer) // CHARACTERS_A_TOKEN)
    return Entry(messages=tuple(Message(role, text) for role, text in turns[: last + 1]), max_tokens=tokens)


def _time(fields: dict[str, Any]) -> float | None:
    if "at" in fields:
        return float(fields["at"])
    return float(fields["timestamp"]) / 1000 if "timestamp" in fields else None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value

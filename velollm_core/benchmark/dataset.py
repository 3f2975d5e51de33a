"""Recorded requests: prompts, chats, ShareGPT conversations and traces with timestamps, as JSON or JSON lines."""

from __future__ import annotations

import json
import math
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
# ShareGPT's own files call the model by several names; tools' answers and developers' words have roles in OpenAI's.
ROLES = {
    **dict.fromkeys(("human", "user", "tool", "function"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("system", "developer"), "system"),
}
MOST_TOKENS = 2**24


@frozen
class Dataset:
    """``entries`` in the order of their ``times``, seconds from the first; in the file's order where it has none."""

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
        except KeyError as error:
            raise VeloError(f"{path}: entry {number} is no request: {error} is missing or not known") from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise VeloError(f"{path}: entry {number} is no request ({error!s:.100})") from error
        if entry is not None:
            entries.append(entry)
            times.append(time)
    if not entries:
        raise VeloError(f"{path}: holds no requests; an entry is an object with prompt, messages or conversations")
    known = [time for time in times if time is not None]
    if len(known) < len(entries):
        return Dataset(tuple(entries), ())
    # What was asked when stays together, whatever the file's order.
    ordered = sorted(zip(known, entries, strict=True), key=lambda pair: pair[0])
    first = ordered[0][0]
    return Dataset(tuple(entry for _, entry in ordered), tuple(time - first for time, _ in ordered))


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise VeloError(f"{path}: is larger than 1 GiB; take a part of it")
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise VeloError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise VeloError(f"{path}: is not UTF-8 (byte {error.start}); write it as UTF-8") from error
    whole = text.lstrip().startswith("[") or "\n" not in text.strip()
    if whole:
        values = _parse(path, text) if text.strip() else []
        yield from values if isinstance(values, list) else [values]
        return
    # Only "\n" ends a line here: JSON text may hold the other ends that `str.splitlines` knows.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parse(path, line, f"line {number} ")


def _parse(path: Path, text: str, where: str = "") -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        hint = "is not JSON" if where else "is neither JSON nor JSON lines"
        raise VeloError(f"{path}: {where}{hint} ({reason:.100})") from error


def _entry(fields: dict[str, Any]) -> Entry | None:
    if not isinstance(fields, dict):
        raise TypeError(f"{fields!r:.40} is not an object")
    limit = fields.get("max_tokens", fields.get("output_length"))
    tokens = None if limit is None else max(1, _tokens(limit))
    if "prompt" in fields:
        return Entry(prompt=_text(fields["prompt"]), max_tokens=tokens)
    if "messages" in fields:
        messages = [Message(ROLES[each["role"]], _content(each.get("content"))) for each in fields["messages"]]
        # Who answers last has been asked nothing yet.
        while messages and messages[-1].role == "assistant":
            messages.pop()
        return Entry(messages=tuple(messages), max_tokens=tokens) if messages else None
    if "conversations" in fields:
        return _conversation([(ROLES[each["from"]], _text(each["value"])) for each in fields["conversations"]], tokens)
    if "input_length" not in fields:
        raise ValueError("it has neither prompt, messages, conversations nor input_length")
    length = _tokens(fields["input_length"])
    words = filler(length * CHARACTERS_A_TOKEN, length)
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
    given = "at" if "at" in fields else "timestamp"
    value = fields.get(given)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{given} {value!r:.40} is not a time: at is in seconds, timestamp in milliseconds")
    return float(value) if given == "at" else value / 1000


def _tokens(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_TOKENS:
        raise ValueError(f"{value!r:.40} is not a number of tokens")
    return int(value)


def _content(value: object) -> str:
    """A message's text: a string, OpenAI's list of parts, or nothing beside a tool call."""
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n".join(_text(part["text"]) for part in value if part.get("type") == "text")
    return _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not text")
    return value

"""Read values out of documents that nobody vouches for: what does not fit is None, nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

LARGEST = 2**63 - 1
TEXT_LENGTH = 200
ABSENT = {"n/a", "na", "none", "unknown", "not supported", "not available", "not found", "unknown error", "err!", "-"}
"""How tools spell that they do not know, without brackets, in lower case."""

UNITS = {
    "": 1, "b": 1, "bytes": 1,
    "kb": 2**10, "kib": 2**10,
    "mb": 2**20, "mib": 2**20,
    "gb": 2**30, "gib": 2**30,
    "tb": 2**40, "tib": 2**40,
}  # fmt: skip
"""Memory sizes as GPU tools print them: their MB and GB are MiB and GiB."""


def at(value: object, *path: str | int) -> object:
    """The value at ``path`` through nested mappings and sequences; None where it ends early."""
    for step in path:
        if isinstance(value, Mapping) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int):
            value = value[step] if 0 <= step < len(value) else None
        else:
            return None
    return value


def items(value: object, limit: int = 1024) -> Sequence[object]:
    """The elements of a list, at most ``limit``; empty for anything else."""
    return value[:limit] if isinstance(value, (list, tuple)) else ()


def text(value: object) -> str | None:
    """One printable line of at most 200 characters; None for what is no text, or says that it is unknown."""
    if not isinstance(value, str):
        return None
    line = " ".join("".join(c if c.isprintable() else " " for c in value[: 4 * TEXT_LENGTH]).split())
    return None if line.strip("[]()").lower() in ABSENT else line[:TEXT_LENGTH] or None


def number(value: object) -> float | None:
    """A finite number, also out of text such as ``700.00``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        result = float(value[:TEXT_LENGTH]) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def whole(value: object) -> int | None:
    """An integer of at most 63 bits, also out of text, decimal or ``0x…``; None for a fraction."""
    if isinstance(value, str):
        try:
            value = int(value[:TEXT_LENGTH], 0 if value.lstrip()[:2].lower() == "0x" else 10)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float) and not value.is_integer():
        return None
    result = int(value)
    return result if abs(result) <= LARGEST else None


def count(value: object) -> int | None:
    """`whole`, where a negative number makes no sense."""
    result = whole(value)
    return result if result is not None and result >= 0 else None


def size(value: object, unit: str = "") -> int | None:
    """Bytes out of ``{"value": 24560, "unit": "MB"}``, ``"81559 MiB"`` or a bare number of ``unit``."""
    if isinstance(value, Mapping):
        return size(value.get("value"), text(value.get("unit")) or unit)
    if isinstance(value, str):
        figure, _, found = (text(value) or "").partition(" ")
        value, unit = figure, found or unit
    amount, scale = number(value), UNITS.get(unit.strip().lower())
    if amount is None or scale is None or not 0 <= amount * scale <= LARGEST:
        return None
    return round(amount * scale)


def parse_json(document: str) -> object:
    """JSON out of a tool's output, behind any warning lines it printed first; None where there is none."""
    for start in ("{", "["):
        position = 0 if document.startswith(start) else document.find("\n" + start)
        if position < 0:
            continue
        try:
            return json.loads(document[position:])
        except (ValueError, RecursionError):
            continue
    return None

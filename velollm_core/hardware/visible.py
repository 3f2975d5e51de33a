"""Which GPUs a program would see: ``CUDA_VISIBLE_DEVICES`` and AMD's likes, as the runtimes read them."""

from __future__ import annotations

import re
from collections.abc import Sequence

LEADING_NUMBER = re.compile(r"[+-]?\d{1,9}")


def visible_positions(value: str | None, uuids: Sequence[str | None]) -> tuple[int, ...]:
    """Positions among ``uuids`` that a variable's ``value`` leaves visible, in its order.

    Unset shows all, empty none. Elements are numbers or (beginnings of) UUIDs, not both in one list. The first that
    names no device, or more than one, ends the list: what stands before it stays visible. A device named twice makes
    the whole list invalid, and nothing visible.
    """
    if value is None:
        return tuple(range(len(uuids)))
    parts = [part.strip() for part in value.split(",", 1024)]
    by_number = not parts[0][:1].isalpha()
    found: list[int] = []
    for part in parts:
        position = _number(part, len(uuids)) if by_number else _identified(part, uuids)
        if position is None:
            break
        if position in found:
            return ()
        found.append(position)
    return tuple(found)


def _number(part: str, length: int) -> int | None:
    match = LEADING_NUMBER.match(part)
    index = int(match[0]) if match else -1
    return index if 0 <= index < length else None


def _identified(part: str, uuids: Sequence[str | None]) -> int | None:
    wanted = part.lower()
    hits = [position for position, uuid in enumerate(uuids) if uuid and wanted and uuid.lower().startswith(wanted)]
    return hits[0] if len(hits) == 1 else None

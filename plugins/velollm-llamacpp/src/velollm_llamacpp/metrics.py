"""llama-server's Prometheus page as plain numbers."""

from __future__ import annotations

import re
from math import isfinite

_SAMPLE = re.compile(r"^(llamacpp:[\w:]+)(?:\{[^}]*\})?\s+(\S+)")


def read_metrics(page: str) -> dict[str, float]:
    """Every counter and gauge by its own name, ``llamacpp:`` kept; lines that hold no finite number are left out."""
    found = {}
    for line in page.splitlines():
        if match := _SAMPLE.match(line):
            try:
                value = float(match[2])
            except ValueError:
                continue
            if isfinite(value):
                found[match[1]] = value
    return found

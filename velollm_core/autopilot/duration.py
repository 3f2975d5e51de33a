"""Spans of time as people type them."""

from __future__ import annotations

import re

import click

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|)")


def duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Seconds of ``90``, ``90s``, ``3m`` or ``1h30m``: an option's callback.

    Raises:
        click.BadParameter: it is no span of time above zero.
    """
    text = value.strip().lower()
    parts = _PART.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise click.BadParameter(f"{value!r} is no span of time: write 90s, 3m or 1h30m", ctx, param)
    return seconds

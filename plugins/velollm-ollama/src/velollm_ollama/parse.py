"""Ollama's own rules for the text of an environment variable, reproduced with their quirks.

Sources: ``envconfig/config.go`` and the parsers of Go's ``strconv`` and ``time``. Nothing here is what a value should
mean; it is what Ollama takes it to mean.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

FOREVER: Final = 2**63 - 1
"""Nanoseconds that Ollama uses for "never"."""

# Go's unicode.IsSpace, which differs from str.strip in U+001C..U+001F.
_SPACE: Final = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_UINT: Final = re.compile(r"[0-9]+")
_INT: Final = re.compile(r"[+-]?[0-9]+")
_TERM: Final = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]+)")


def clean(text: str) -> str:
    """The text as Ollama looks at it: surrounding space off, then any quotes. Empty counts as unset."""
    return text.strip(_SPACE).strip("\"'")


def strict_bool(text: str) -> bool | None:
    """A boolean by Go's twelve spellings; None for every other word."""
    if text in _TRUE:
        return True
    return False if text in _FALSE else None


def parse_bool(text: str, default: bool) -> bool:
    """A boolean by Ollama's rule: a word that Go does not know (``off``, ``no``, ``none``) counts as true."""
    value = clean(text)
    if not value:
        return default
    known = strict_bool(value)
    return True if known is None else known


def parse_uint(text: str) -> int | None:
    """A decimal number below 2**64 without sign, suffix or point; None for anything else."""
    if not _UINT.fullmatch(text):
        return None
    number = int(text)
    return number if number < 2**64 else None


def parse_int(text: str, bits: int = 64) -> int | None:
    """A decimal number with an optional sign that fits ``bits``; None for anything else."""
    if not _INT.fullmatch(text):
        return None
    number = int(text)
    return number if -(2 ** (bits - 1)) <= number < 2 ** (bits - 1) else None


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a Go duration (``1h30m``, ``-1.5s``), a unit being required but for 0; None where Go refuses."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    total = Fraction(0)
    position = 0
    while position < len(rest):
        term = _TERM.match(rest, position)
        if term is None or not (term[1] or term[2]) or term[3] not in _UNITS:
            return None
        total += int(Fraction(f"{term[1] or '0'}.{term[2] or '0'}") * _UNITS[term[3]])
        position = term.end()
    limit = FOREVER + 1 if sign < 0 else FOREVER
    return sign * int(total) if position and total <= limit else None


def parse_keep(text: str, default: int, *, zero_is_forever: bool) -> int:
    """Nanoseconds of a variable that takes a duration or whole seconds; what neither parser takes is the default.

    Negative is forever; so is zero where ``zero_is_forever`` (the load timeout, not the keep-alive).
    """
    value = clean(text)
    nanoseconds: int | None = None
    if value:
        nanoseconds = parse_duration(value)
        if nanoseconds is None and (seconds := parse_int(value)) is not None:
            nanoseconds = _wrap(seconds * 10**9)
    if nanoseconds is None:
        return default
    return FOREVER if nanoseconds < 0 or (zero_is_forever and nanoseconds == 0) else nanoseconds


def _wrap(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


def format_duration(nanoseconds: int) -> str:
    """A duration as Go prints it in the log: ``5m0s``, ``1.5s``, ``250ms``."""
    if nanoseconds < 0:
        return "-" + format_duration(-nanoseconds)
    if nanoseconds < 10**9:
        for unit in ("ms", "µs"):
            if nanoseconds >= _UNITS[unit]:
                return f"{_decimal(Fraction(nanoseconds, _UNITS[unit]))}{unit}"
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(Fraction(rest, 10**9))}s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(value: Fraction) -> str:
    whole, part = divmod(value, 1)
    digits = f"{int(part * 10**9):09d}".rstrip("0")
    return f"{whole}.{digits}" if digits else f"{whole}"


def level_name(text: str) -> str:
    """The log level that OLLAMA_DEBUG's text becomes: INFO, DEBUG for a true word, n × -4 for a number."""
    value = clean(text)
    if strict_bool(value):
        return "DEBUG"
    number = (parse_int(value) or 0) * -4
    for name, floor in (("ERROR", 8), ("WARN", 4), ("INFO", 0)):
        if number >= floor:
            return name if number == floor else f"{name}+{number - floor}"
    return "DEBUG" if number == -4 else f"DEBUG{number + 4:+d}"

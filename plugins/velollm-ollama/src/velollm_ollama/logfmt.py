"""Lines of Go's text log: ``time=… level=… msg="…" key=value``."""

from __future__ import annotations

import ast
import re
from typing import Final

_PAIR: Final = re.compile(r'([A-Za-z_][\w.]*)=("(?:[^"\\]|\\.)*"|\S*)')
_MESSAGE: Final = re.compile(r'\bmsg=("(?:[^"\\]|\\.)*"|\S*)')


def message(line: str) -> str | None:
    """The ``msg`` of a line; None for a line without one."""
    match = _MESSAGE.search(line)
    return unquote(match[1]) if match else None


def fields(line: str) -> dict[str, str]:
    """Every ``key=value`` of a line, unquoted; a prefix such as the journal's is skipped."""
    return {name: unquote(value) for name, value in _PAIR.findall(line)}


def unquote(text: str) -> str:
    """A Go-quoted text without its quotes and escapes; anything else as it is."""
    if len(text) < 2 or text[0] != '"' or text[-1] != '"':
        return text
    try:
        return str(ast.literal_eval(text))  # Go's escapes are all Python's too
    except (ValueError, SyntaxError):
        return text[1:-1]

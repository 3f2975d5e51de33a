"""What Ollama makes of one variable's text, in the words of its start log, and back."""

from __future__ import annotations

from pathlib import Path

from velollm_ollama.host import parse_host
from velollm_ollama.parse import (
    FOREVER,
    clean,
    format_duration,
    level_name,
    parse_bool,
    parse_duration,
    parse_keep,
    parse_uint,
)
from velollm_ollama.variable import Variable
from velollm_ollama.version import Version

_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")
_APPS = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
APPENDED_ORIGINS = (
    *(f"{scheme}://{host}{port}" for host in _LOCAL for port in ("", ":*") for scheme in ("http", "https")),
    *_APPS,
)
"""What Ollama appends to every list of origins (0.33; older releases append fewer)."""


def as_read(variable: Variable, text: str | None, version: Version) -> str:
    """What ``text`` (None: unset) becomes, as the start log prints it."""
    default = variable.default_in(version)
    value = clean(text or "")
    if variable.kind in ("bool", "tristate"):
        return _read_bool(variable, value, default)
    if variable.kind == "uint":
        number = parse_uint(value)
        return value if variable.name.startswith("LLAMA_ARG_") else default if number is None else str(number)
    if variable.kind == "duration":
        five_minutes = parse_duration(default) or 0
        return format_duration(parse_keep(value, five_minutes, zero_is_forever=variable.name == "OLLAMA_LOAD_TIMEOUT"))
    if variable.kind == "level":
        return level_name(value)
    if variable.kind == "host":
        return parse_host(value).url
    return _read_text(variable, value, default)


def _read_bool(variable: Variable, value: str, default: str) -> str:
    if variable.name == "OLLAMA_IGPU_ENABLE":
        return value
    return str(parse_bool(value, default == "true")).lower()


def _read_text(variable: Variable, value: str, default: str) -> str:
    if variable.name == "OLLAMA_MODELS":
        return value or str(Path.home() / ".ollama" / "models")
    if variable.kind == "list":
        given = value.split(",") if value else []
        if variable.name == "OLLAMA_ORIGINS":
            given += APPENDED_ORIGINS
        return f"[{' '.join(given)}]" if given else default
    return value or default


def as_written(variable: Variable, read: str, version: Version) -> str | None:
    """The text to set so that Ollama reads ``read``; None where it is the default, or the log does not tell.

    The log prints ``false`` for flash attention both when it is off and when it is left to Ollama.
    """
    if variable.kind == "tristate" and read == "false":
        return None
    if read in ("", variable.default_in(version)):
        return None
    if variable.kind in ("bool", "tristate"):
        return {"true": "1", "false": "0"}.get(read, read)
    if variable.kind == "level":
        return {"INFO": None, "DEBUG": "1", "DEBUG-4": "2"}.get(read)
    if variable.kind == "duration" and parse_duration(read) == FOREVER:
        return "-1"
    if variable.kind == "list":
        return ",".join(origin for origin in read.strip("[]").split() if origin not in APPENDED_ORIGINS) or None
    if variable.name == "OLLAMA_MODELS" and read == str(Path.home() / ".ollama" / "models"):
        return None
    return read

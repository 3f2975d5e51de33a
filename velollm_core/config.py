"""VeloLLM's own settings and places: environment first, then ``config.toml``, then defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs
from attrs import frozen

from velollm_core.errors import VeloError

Number = TypeVar("Number", int, float)
ConnectionField = Literal["url", "api_key", "binary"]


@frozen
class Connection:
    """Where one backend is, as far as anybody said: its URL, the key it asks for, the binary to start it with."""

    url: str | None = None
    api_key: str | None = None
    binary: str | None = None


@frozen
class Config:
    """``config.toml``, read: the floors are the least context (tokens) and decode rate (tokens/s) a plan may have."""

    default_backend: str | None = None
    backends: Mapping[str, Connection] = {}
    min_context: int | None = None
    min_decode: float | None = None


def cache_dir() -> Path:
    """Where probes and model headers are kept; may be deleted at any time."""
    return platformdirs.user_cache_path("velollm")


def state_dir() -> Path:
    """Where measurements and the history of what was applied are kept."""
    return platformdirs.user_state_path("velollm")


def config_dir() -> Path:
    """Where ``config.toml`` lives."""
    return platformdirs.user_config_path("velollm")


def load_config(path: Path | None = None) -> Config:
    """Read ``config.toml``; an absent file is an empty one.

    Raises:
        VeloError: the file is not TOML, or holds a value of the wrong type.
    """
    path = path or config_dir() / "config.toml"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise VeloError(f"{path}: cannot be read ({error}); repair or remove it") from error
    try:
        return _config(document)
    except (TypeError, ValueError, AttributeError) as error:
        raise VeloError(f"{path}: {error}; see `docs/first-run.md` for the keys it may hold") from error


def connection(backend: str) -> Connection:
    """What is said of a backend by ``VELOLLM_<BACKEND>_URL``, ``_API_KEY`` and ``_BINARY``, else by ``config.toml``."""
    configured = load_config().backends.get(backend, Connection())
    return Connection(
        url=os.environ.get(variable(backend, "url")) or configured.url,
        api_key=os.environ.get(variable(backend, "api_key")) or configured.api_key,
        binary=os.environ.get(variable(backend, "binary")) or configured.binary,
    )


def variable(backend: str, field: ConnectionField) -> str:
    """The environment variable that overrides ``field`` for ``backend``."""
    return f"VELOLLM_{backend.upper().replace('-', '_')}_{field.upper()}"


def _config(document: Mapping[str, object]) -> Config:
    floors = _table(document, "floors")
    return Config(
        default_backend=_text(document, "default_backend"),
        backends={
            name: _connection(_table(_table(document, "backends"), name)) for name in _table(document, "backends")
        },
        min_context=_number(floors, "context", int),
        min_decode=_number(floors, "decode", float),
    )


def _connection(table: Mapping[str, object]) -> Connection:
    return Connection(url=_text(table, "url"), api_key=_text(table, "api_key"), binary=_text(table, "binary"))


def _table(document: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise TypeError(f"[{key}] must be a table, found {value!r}")
    return value


def _text(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{key} must be text, found {value!r}")
    return value


def _number(table: Mapping[str, object], key: str, kind: type[Number]) -> Number | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} must be a number, found {value!r}")
    return kind(value)

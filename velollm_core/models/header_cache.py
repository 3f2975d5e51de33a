"""Headers of remote models, kept on this machine: for the next time, for offline, and for engines that want a file."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

from attrs import frozen

FRESH_SECONDS = 24 * 3600
"""A header younger than this is not asked for again."""


@frozen
class CachedHeader:
    """A header on this machine: ``path`` holds it and nothing else, ``size`` is the remote file's."""

    path: Path
    size: int | None
    fresh: bool


def find_header(url: str, name: str) -> CachedHeader | None:
    """The header kept for ``url``, None where there is none or it cannot be read."""
    path = _path(url, name)
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        age = time.time() - path.stat().st_mtime
        size = found["size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not path.is_file() or not isinstance(size, int | None):
        return None
    return CachedHeader(path, size, 0 <= age < FRESH_SECONDS)


def keep_header(url: str, name: str, data: bytes, size: int | None) -> Path | None:
    """Keep ``data``, a whole header and no more; None where nothing can be written."""
    path = _path(url, name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, data)
        _write(path.with_suffix(".json"), json.dumps({"url": url, "size": size}).encode())
    except OSError:
        return None
    return path


def _path(url: str, name: str) -> Path:
    """Parts of a split model share a folder, so that they find each other."""
    from velollm_core.config import cache_dir

    folder = hashlib.sha256(url.rsplit("/", 1)[0].encode()).hexdigest()[:16]
    return cache_dir() / "headers" / folder / Path(name).name


def _write(path: Path, data: bytes) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)

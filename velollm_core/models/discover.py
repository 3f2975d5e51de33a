"""The GGUF files that other programs have put on this machine, by the names people know them by."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Literal

from attrs import frozen

Keeper = Literal["huggingface", "llamacpp", "lmstudio", "ollama"]

MAGIC = b"GGUF"
MOST_ENTRIES = 50_000
"""Files and folders looked at below one root: no tree may hang a command."""

MODEL_LAYER = "application/vnd.ollama.image.model"
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_NOT_A_MODEL = re.compile(r"mmproj|^ggml-vocab-|\.imatrix\.|-lora-|^lora-", re.IGNORECASE)


@frozen
class FoundModel:
    """A model on disk: ``name`` as its keeper calls it, ``path`` of its first file, ``size`` of all in bytes."""

    name: str
    path: Path
    size: int
    keeper: Keeper


@frozen
class Root:
    """A folder in which ``keeper`` keeps models."""

    keeper: Keeper
    path: Path


def discover_ggufs(roots: Iterable[Root] | None = None) -> list[FoundModel]:
    """Every whole GGUF below ``roots`` (default: the usual places), each file once, by name.

    Folders that cannot be read are passed over. Projectors, vocabularies and adapters are no models.
    """
    found: dict[Path, FoundModel] = {}
    for root in default_roots(os.environ, Path.home()) if roots is None else roots:
        models = _ollama(root.path) if root.keeper == "ollama" else _files(root)
        for model in models:
            found.setdefault(_real(model.path), model)
    return sorted(found.values(), key=lambda model: (model.name.lower(), str(model.path)))


def default_roots(environment: Mapping[str, str], home: Path) -> tuple[Root, ...]:
    """Where Hugging Face, llama.cpp, LM Studio and Ollama keep models for a user with this environment."""
    caches = Path(environment.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(environment.get("HF_HOME") or caches / "huggingface") / "hub"
    own = home / "Library/Caches" if sys.platform == "darwin" else caches
    return (
        Root("huggingface", Path(environment.get("HF_HUB_CACHE") or hub)),
        Root("llamacpp", Path(environment.get("LLAMA_CACHE") or own / "llama.cpp")),
        Root("lmstudio", home / ".lmstudio/models"),
        Root("lmstudio", caches / "lm-studio/models"),
        Root("ollama", Path(environment.get("OLLAMA_MODELS") or home / ".ollama/models")),
        Root("ollama", Path("/usr/share/ollama/.ollama/models")),
        Root("ollama", Path("/var/lib/ollama/models")),
    )


def _files(root: Root) -> Iterator[FoundModel]:
    for path in _walk(root.path):
        if path.suffix.lower() != ".gguf" or _NOT_A_MODEL.search(path.name):
            continue
        size = _size(path)
        if size is not None and _is_gguf(path):
            yield FoundModel(_name(root, path), path, size, root.keeper)


def _name(root: Root, path: Path) -> str:
    """The path below the root, without what the keeper adds to it: ``org/model/file.gguf``."""
    parts = path.relative_to(root.path).parts
    if root.keeper == "huggingface" and parts[0].startswith("models--"):
        return "/".join([*parts[0].removeprefix("models--").split("--"), *parts[3:]])
    return "/".join(parts)


def _size(path: Path) -> int | None:
    """Bytes of the model that begins in ``path``; None for a later part, or where a part is missing."""
    parts = [path]
    if match := _PART.search(path.name):
        number, count = match.groups()
        if int(number) != 1:
            return None
        stem = path.name[: match.start()]
        parts = [path.with_name(f"{stem}-{index:05}-of-{count}.gguf") for index in range(1, int(count) + 1)]
    try:
        return sum(part.stat().st_size for part in parts)
    except OSError:
        return None


def _ollama(root: Path) -> Iterator[FoundModel]:
    manifests = root / "manifests"
    for path in _walk(manifests):
        for digest in _model_digests(path):
            blob = root / "blobs" / digest.replace(":", "-")
            size = _size(blob)
            if size is not None and _is_gguf(blob):
                yield FoundModel(_ollama_name(path.relative_to(manifests).parts), blob, size, "ollama")


def _ollama_name(parts: tuple[str, ...]) -> str:
    """``host/namespace/model/tag`` as Ollama shows it: its own registry and library go without saying."""
    *place, model, tag = parts
    if place[:1] == ["registry.ollama.ai"]:
        place = place[1:]
        if place == ["library"]:
            place = []
    return "/".join([*place, f"{model}:{tag}"])


def _model_digests(manifest: Path) -> list[str]:
    try:
        layers = json.loads(manifest.read_bytes())["layers"]
        return [str(layer["digest"]) for layer in layers if layer["mediaType"] == MODEL_LAYER]
    except (OSError, ValueError, LookupError, TypeError):
        return []


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _walk(root: Path) -> Iterator[Path]:
    entries = (Path(folder) / name for folder, _, names in os.walk(root) for name in sorted(names))
    return islice(entries, MOST_ENTRIES)


def _real(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path

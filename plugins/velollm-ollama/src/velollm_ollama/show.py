"""A model's shape from ``/api/show``: GGUF keys and the tensor table, without the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from velollm_core.errors import BackendError
from velollm_core.models.building import build_spec
from velollm_core.models.metadata import LongArray, Metadata, Value
from velollm_core.models.spec import ModelSpec, TensorSpec
from velollm_core.models.tensor_types import tensor_type

_LONG = 4096
_FROM = re.compile(r"^FROM (.+)$", re.MULTILINE)


def show_spec(name: str, show: Mapping[str, Any], file_bytes: int | None = None) -> ModelSpec:
    """The spec of the model called ``name``.

    Raises:
        BackendError: the model runs elsewhere, or the answer has no GGUF keys.
        ModelFileError: a key or tensor cannot be understood.
    """
    if show.get("remote_host") or show.get("remote_model"):
        raise BackendError(f"ollama: {name} runs at {show.get('remote_host') or 'a remote host'}, not on this machine")
    info = show.get("model_info")
    if not isinstance(info, Mapping) or not info:
        raise BackendError(f"ollama: /api/show says nothing of the shape of {name}", kind="malformed")
    values = {key: value for key, raw in info.items() if (value := _value(raw)) is not None}
    values["general.name"] = name
    tensors = tuple(_tensor(entry) for entry in show.get("tensors") or ())
    return build_spec(Metadata(f"ollama:{name}", values), tensors, name, kind="ollama", file_bytes=file_bytes)


def blob_path(show: Mapping[str, Any]) -> str | None:
    """The path of the model's file, as its server sees it; None where the Modelfile names another model."""
    match = _FROM.search(str(show.get("modelfile") or ""))
    path = match[1].strip().strip('"') if match else ""
    return path if "sha256-" in path else None


def _value(raw: object) -> Value | None:
    """One key's value; None for a vocabulary that was left out."""
    if isinstance(raw, list):
        return LongArray(len(raw)) if len(raw) > _LONG else tuple(item for item in raw if _scalar(item))
    return raw if isinstance(raw, (bool, int, float, str)) else None


def _scalar(item: object) -> bool:
    return isinstance(item, (bool, int, float, str))


def _tensor(entry: Mapping[str, Any]) -> TensorSpec:
    kind = str(entry["type"]).lower()
    shape = tuple(int(size) for size in entry["shape"])
    return TensorSpec(str(entry["name"]), kind, shape, tensor_type(kind).tensor_bytes(*shape))

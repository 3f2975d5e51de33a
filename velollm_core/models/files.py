"""Read a model's shape from where it lies on this machine."""

from __future__ import annotations

from pathlib import Path

from velollm_core.errors import ModelFileError
from velollm_core.models.building import gguf_spec
from velollm_core.models.gguf import read_gguf
from velollm_core.models.spec import ModelSpec


def read_model(path: Path) -> ModelSpec:
    """The spec of a GGUF file, header-only and split ones included.

    Raises:
        ModelFileError: there is nothing readable at ``path``, or it is unsound.
    """
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    return gguf_spec(read_gguf(path), path.stem)

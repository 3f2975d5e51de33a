"""From what a user types to a model's shape: a file, a directory, ``hf:…`` or a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velollm_core.models.spec import ModelSpec

REMOTE = ("hf:", "http://", "https://")


def looks_like_source(name: str) -> bool:
    """Whether ``name`` can be nothing but a file, directory or URL, or is one that exists here."""
    return name.startswith(REMOTE) or name.endswith(".gguf") or Path(name).expanduser().exists()


def load_spec(name: str) -> ModelSpec:
    """The spec of the model at ``name``, header or configuration only.

    Raises:
        ModelFileError: it is missing or cannot be read.
    """
    if name.startswith(REMOTE):
        from velollm_core.models.remote import read_remote

        return read_remote(name)
    from velollm_core.models.files import read_model

    return read_model(Path(name).expanduser())

"""A model's shape out of its folder."""

from __future__ import annotations

import json
from pathlib import Path

from velollm_core.errors import ModelFileError
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.families import read_config


def read_model_config(folder: Path) -> ModelConfig:
    """The shape that ``config.json`` in ``folder`` gives.

    Raises:
        ModelFileError: it is missing, no JSON, or lacks a key.
        ModelRefused: the family is not one of ours.
    """
    path = folder / "config.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: not found; give a folder with config.json and safetensors files") from error
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error
    if not isinstance(document, dict):
        raise ModelFileError(f"{path}: holds no object")
    return read_config(document, str(path))

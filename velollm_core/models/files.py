"""Read a model's shape from where it lies on this machine: a GGUF file, or a directory of one."""

from __future__ import annotations

from pathlib import Path

from velollm_core.errors import ModelFileError
from velollm_core.models.building import gguf_spec
from velollm_core.models.gguf import read_gguf
from velollm_core.models.hf_config import config_spec
from velollm_core.models.hub import Reference, pick_gguf
from velollm_core.models.hub_config import parse_config, shard_names
from velollm_core.models.safetensors import read_table
from velollm_core.models.spec import ModelSpec


def read_model(path: Path) -> ModelSpec:
    """The spec of a GGUF file, header-only and split ones included, or of a Hugging Face directory.

    Raises:
        ModelFileError: there is nothing readable at ``path``, or it is unsound.
    """
    if path.is_dir():
        return _read_directory(path)
    if not path.exists():
        raise ModelFileError(f"{path}: no such file")
    return gguf_spec(read_gguf(path), path.stem)


def _read_directory(path: Path) -> ModelSpec:
    try:
        files = sorted(entry.name for entry in path.iterdir() if entry.is_file())
        if "config.json" in files and shard_names(files):
            config = parse_config(str(path), (path / "config.json").read_bytes())
            tensors = [tensor for name in shard_names(files) for tensor in read_table(path / name)]
            return config_spec(config, tensors, str(path))
        gguf = pick_gguf(Reference(str(path)), files)
        if gguf is None and "config.json" in files:
            return config_spec(parse_config(str(path), (path / "config.json").read_bytes()), [], str(path))
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error
    if gguf is None:
        raise ModelFileError(f"{path}: a directory without a GGUF or a config.json")
    return read_model(path / gguf)

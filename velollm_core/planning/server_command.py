"""The `llama-server` command that loads a model as planned."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec

_DEFAULT_BATCH = 2048
_DEFAULT_UBATCH = 512


def server_arguments(spec: ModelSpec, load: LoadSettings) -> tuple[str, ...] | None:
    """The command as separate words; settings that equal the server's own defaults are left out.

    None for a model that llama-server cannot load as it is (an HF directory, a backend's own name).
    """
    source = _source(spec)
    if source is None:
        return None
    words = ["llama-server", *source, "-c", str(load.total_context)]
    if load.parallel is not None:
        words += ["-np", str(load.parallel)]
    if load.kv_unified is not None:
        words.append("--kv-unified" if load.kv_unified else "--no-kv-unified")
    words += _cache(load)
    if load.batch != _DEFAULT_BATCH:
        words += ["-b", str(load.batch)]
    if load.ubatch != _DEFAULT_UBATCH:
        words += ["-ub", str(load.ubatch)]
    if load.swa_full:
        words.append("--swa-full")
    words += ["-ngl", str(load.gpu_layers)]
    if load.cpu_moe_layers:
        words += ["--n-cpu-moe", str(load.cpu_moe_layers)]
    return (*words, "--fit", "off")


def server_command(spec: ModelSpec, load: LoadSettings) -> str | None:
    """The same as one line for a POSIX shell."""
    words = server_arguments(spec, load)
    return shlex.join(words) if words else None


def _source(spec: ModelSpec) -> list[str] | None:
    if spec.format != "gguf":
        return None
    if spec.source.startswith("hf:"):
        return _from_hub(spec.source)
    if spec.source.startswith(("http://", "https://")):
        return ["-mu", spec.source]
    return ["-m", spec.source]


def _from_hub(source: str) -> list[str] | None:
    from velollm_core.models.hub import file_url, parse_reference

    reference = parse_reference(source)
    if reference.file is None:
        return None
    if reference.revision != "main":
        return ["-mu", file_url(reference, reference.file)]
    return ["-hfr", reference.repo, "-hff", reference.file]


def _cache(load: LoadSettings) -> list[str]:
    words = []
    if load.type_k != "f16":
        words += ["-ctk", load.type_k]
    if load.type_v != "f16":
        words += ["-ctv", load.type_v]
    if load.flash_attn != "auto":
        words += ["-fa", load.flash_attn]
    return words

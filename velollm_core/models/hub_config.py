"""A model's shape from a repository of safetensors on a hub: its configuration and its tensor tables."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from velollm_core.errors import ModelFileError
from velollm_core.models import hub
from velollm_core.models.hf_config import config_spec
from velollm_core.models.ranged import read_start, read_whole
from velollm_core.models.safetensors import parse_table

if TYPE_CHECKING:
    import aiohttp

    from velollm_core.models.spec import ModelSpec, TensorSpec

CONFIG_BYTES = 4 << 20
AT_A_TIME = 8


async def fetch_config_spec(
    session: aiohttp.ClientSession, reference: hub.Reference, files: Sequence[str]
) -> ModelSpec:
    """The spec of a repository that holds ``files``.

    Raises:
        ModelFileError: there is no configuration, or a file is unsound.
    """
    name = f"hf:{reference.repo}"
    if "config.json" not in files:
        raise ModelFileError(f"{name}: neither a GGUF nor a config.json is there")
    text = await read_whole(session, hub.file_url(reference, "config.json"), f"{name}/config.json", CONFIG_BYTES)
    shards = shard_names(files)
    limit = asyncio.Semaphore(AT_A_TIME)

    async def shard(file: str) -> tuple[TensorSpec, ...]:
        async with limit:
            return (await read_start(session, hub.file_url(reference, file), file, parse_table)).parsed

    tables = await asyncio.gather(*(shard(file) for file in shards))
    return config_spec(parse_config(name, text), [each for table in tables for each in table], reference.source(None))


def shard_names(files: Sequence[str]) -> list[str]:
    """The safetensors files that together are the model: top level, no adapters, no second copy."""
    found = sorted(file for file in files if file.endswith(".safetensors") and "/" not in file)
    models = [file for file in found if file.startswith("model")]
    return [file for file in models or found if not file.startswith(("consolidated", "adapter"))]


def parse_config(name: str, text: bytes | str) -> dict[str, object]:
    """A configuration's JSON.

    Raises:
        ModelFileError: it is no JSON object.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: config.json is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{name}: config.json is a {type(config).__name__}, not an object")
    return config

"""A model's shape from a hub or a web server, its header only: to plan before downloading."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.errors import ModelFileError
from velollm_core.models import hub
from velollm_core.models.building import gguf_spec
from velollm_core.models.gguf import join, part_names, read_header, split_count
from velollm_core.models.gguf_header import GgufHeader, parse_header
from velollm_core.models.header_cache import find_header, keep_header
from velollm_core.models.ranged import Unreachable, open_session, read_start, read_whole

if TYPE_CHECKING:
    import aiohttp

    from velollm_core.models.spec import ModelSpec

LISTING_BYTES = 32 << 20
AT_A_TIME = 8


@frozen
class _Fetched:
    header: GgufHeader
    path: Path | None


def read_remote(source: str) -> ModelSpec:
    """The spec of the model called ``source``: ``hf:…`` or a URL; waits for the network, in its own event loop.

    A file that the hub's client has in its cache is read there; headers are kept for a day, and longer for offline.

    Raises:
        ModelFileError: it does not exist, access is refused, the network is away, or the file is unsound.
    """
    return asyncio.run(fetch_spec(source))


async def fetch_spec(source: str) -> ModelSpec:
    """As `read_remote`, inside an event loop."""
    if not source.startswith("hf:"):
        if not source.split("?", 1)[0].endswith(".gguf"):
            raise ModelFileError(f"{source}: only URLs of .gguf files are read; for a repository use hf:org/repo")
        token = hub.token() if source.startswith(f"{hub.endpoint()}/") else None
        async with open_session(token) as session:
            return await _gguf(session, source, source)
    reference = hub.parse_reference(source)
    if reference.file and (path := hub.cached_file(reference, reference.file)):
        from velollm_core.models.files import read_model

        return read_model(Path(path))
    async with open_session(hub.token()) as session:
        return await _from_hub(session, reference)


async def _from_hub(session: aiohttp.ClientSession, reference: hub.Reference) -> ModelSpec:
    file = reference.file
    if file is None:
        files = await _files(session, reference)
        file = hub.pick_gguf(reference, files)
        if file is None:
            from velollm_core.models.hub_config import fetch_config_spec

            return await fetch_config_spec(session, reference, files)
    return await _gguf(session, hub.file_url(reference, file), reference.source(file))


async def _files(session: aiohttp.ClientSession, reference: hub.Reference) -> Sequence[str]:
    name = f"hf:{reference.repo}"
    if hub.offline():
        raise ModelFileError(f"{name}: HF_HUB_OFFLINE is set: name the file, hf:{reference.repo}/FILE.gguf")
    listing = await read_whole(session, hub.listing_url(reference), name, LISTING_BYTES)
    try:
        return [str(entry["rfilename"]) for entry in json.loads(listing)["siblings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{name}: the hub's list of files cannot be understood") from error


async def _gguf(session: aiohttp.ClientSession, url: str, source: str) -> ModelSpec:
    name = hub.url_name(url)
    first = await _header(session, url, name)
    fetched = [first]
    if split_count(name, first.header) > 1:
        base = url.split("?", 1)[0].rsplit("/", 1)[0]
        limit = asyncio.Semaphore(AT_A_TIME)

        async def part(part_name: str) -> _Fetched:
            async with limit:
                return await _header(session, f"{base}/{part_name}", part_name)

        fetched = list(await asyncio.gather(*(part(each) for each in part_names(name, first.header))))
    model = join(source, [each.header for each in fetched])
    spec = gguf_spec(model, Path(name).stem)
    return evolve(spec, data_present=False, header=str(fetched[0].path) if fetched[0].path else None)


async def _header(session: aiohttp.ClientSession, url: str, name: str) -> _Fetched:
    """One file's header, from the cache where it is fresh or nothing newer can be had."""
    kept = find_header(url, name)
    if kept is None or not (kept.fresh or hub.offline()):
        try:
            return await _fetch(session, url, name)
        except Unreachable:
            if kept is None:
                raise
    header = read_header(kept.path)
    return _Fetched(evolve(header, file_bytes=kept.size or header.file_bytes), kept.path)


async def _fetch(session: aiohttp.ClientSession, url: str, name: str) -> _Fetched:
    if hub.offline() and url.startswith(hub.endpoint()):
        raise ModelFileError(f"{name}: HF_HUB_OFFLINE is set and its header is not on this machine")
    start = await read_start(session, url, name, parse_header)
    header = evolve(start.parsed, file_bytes=start.size or _end(start.parsed))
    path = keep_header(url, name, start.data[: header.data_offset].ljust(header.data_offset, b"\0"), start.size)
    return _Fetched(header, path)


def _end(header: GgufHeader) -> int:
    """Where the file ends by its own tensor table."""
    return header.data_offset + max((tensor.offset + tensor.bytes for tensor in header.tensors), default=0)

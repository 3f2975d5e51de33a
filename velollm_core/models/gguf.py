"""Read GGUF headers from local files: whole, split, sparse, or cut off behind the header."""

from __future__ import annotations

import re
from pathlib import Path

from attrs import evolve, frozen

from velollm_core.errors import ModelFileError
from velollm_core.models.gguf_cursor import HeaderIncomplete
from velollm_core.models.gguf_header import GgufHeader, parse_header
from velollm_core.models.metadata import Metadata
from velollm_core.models.spec import TensorSpec

MAX_HEADER = 128 << 20
"""No real header comes near: the largest vocabularies make 20 MiB. A bound on time and memory."""
FIRST_READ = 16 << 20
MAX_PARTS = 1000
_PART = re.compile(r"^(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")


@frozen
class GgufModel:
    """The headers of one model's file or files, joined: the first one's metadata, every one's tensors."""

    metadata: Metadata
    tensors: tuple[TensorSpec, ...]
    file_bytes: int
    data_present: bool


def read_header(path: Path) -> GgufHeader:
    """Read the header of one file, a piece of the file at a time.

    Raises:
        ModelFileError: the file cannot be read, is no GGUF, or no sound one.
    """
    try:
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file")
        size = path.stat().st_size
        with path.open("rb") as file:
            buffer = file.read(FIRST_READ)
            while True:
                try:
                    return parse_header(path.name, buffer, max(size, len(buffer)))
                except HeaderIncomplete as incomplete:
                    more = next_read(path.name, len(buffer), incomplete.needed) - len(buffer)
                    piece = file.read(more)
                    if not piece:
                        raise ModelFileError(f"{path}: shrank while it was read") from incomplete
                    buffer += piece
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error


def next_read(name: str, have: int, needed: int) -> int:
    """How many bytes of a file to have next when ``have`` were too few, at least ``needed``.

    Raises:
        ModelFileError: the header is longer than any real one.
    """
    if needed > MAX_HEADER:
        raise ModelFileError(f"{name}: the header goes on behind {MAX_HEADER >> 20} MiB: not a sound GGUF")
    return min(max(needed, have * 4), MAX_HEADER)


def read_gguf(path: Path) -> GgufModel:
    """Read a model's header or, where it is split (``-00001-of-00003.gguf``), the headers of all its parts.

    Raises:
        ModelFileError: a part is missing or unsound.
    """
    first = read_header(path)
    parts = [path]
    if split_count(path.name, first) > 1:
        parts = [path.with_name(name) for name in part_names(path.name, first)]
        if parts[0] != path:
            first = read_header(parts[0])
    return join(str(parts[0]), [first, *(read_header(part) for part in parts[1:])])


def split_count(name: str, header: GgufHeader) -> int:
    """How many files the model is split into."""
    return Metadata(name, header.metadata).integer("split.count", 1)


def part_names(name: str, header: GgufHeader) -> list[str]:
    """The names of all parts of the split model that ``name`` is one of, in order.

    Raises:
        ModelFileError: the name does not tell, or contradicts the header.
    """
    count = split_count(name, header)
    match = _PART.match(name)
    if match is None or int(match["count"]) != count or count > MAX_PARTS:
        raise ModelFileError(
            f"{name}: one of {count} parts by its split.count, but not named NAME-00001-of-{count:05}.gguf"
        )
    return [f"{match['stem']}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def join(source: str, headers: list[GgufHeader]) -> GgufModel:
    """Join the headers of a model's parts, in order.

    Raises:
        ModelFileError: parts out of order, a tensor in two parts, or fewer tensors than announced.
    """
    metadata = Metadata(source, headers[0].metadata)
    tensors = [evolve(tensor, part=part) for part, header in enumerate(headers) for tensor in header.tensors]
    for part, header in enumerate(headers if len(headers) > 1 else []):
        if Metadata(source, header.metadata).integer("split.no") != part:
            raise ModelFileError(f"{source}: part {part + 1} of {len(headers)} says another number in split.no")
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise ModelFileError(f"{source}: a tensor stands in two parts")
    announced = metadata.integer("split.tensors.count", len(tensors))
    if len(headers) > 1 and announced != len(tensors):
        raise ModelFileError(f"{source}: {announced} tensors announced by split.tensors.count, {len(tensors)} found")
    present = all(header.data_present for header in headers)
    return GgufModel(metadata, tuple(tensors), sum(header.file_bytes for header in headers), present)

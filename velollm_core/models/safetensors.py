"""Read the tensor table of a safetensors file: a length, then JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from velollm_core.errors import ModelFileError
from velollm_core.models.gguf_cursor import HeaderIncomplete
from velollm_core.models.spec import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TABLE = 100 << 20
"""The format's own limit, bytes."""
_BITS: dict[str, int] = {
    "F64": 64,
    "I64": 64,
    "U64": 64,
    "C64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F16": 16,
    "BF16": 16,
    "I16": 16,
    "U16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I8": 8,
    "U8": 8,
    "BOOL": 8,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F4": 4,
}


def parse_table(name: str, buffer: bytes, size: int) -> tuple[TensorSpec, ...]:
    """The tensors of the file called ``name`` of ``size`` bytes, of which ``buffer`` holds the beginning.

    Raises:
        HeaderIncomplete: more of the file is needed.
        ModelFileError: it is no safetensors file, or no sound one; the text names the tensor.
    """
    if size < 8:
        raise ModelFileError(f"{name}: {size} bytes are no safetensors file")
    length = int.from_bytes(buffer[:8], "little") if len(buffer) >= 8 else 0
    if length > min(MAX_TABLE, size - 8):
        raise ModelFileError(f"{name}: a table of {length} bytes in a file of {size}: not a sound safetensors file")
    if len(buffer) < 8 + length or length == 0:
        raise HeaderIncomplete(f"{name}: the table lies behind the {len(buffer)} bytes read", 8 + length)
    try:
        table = json.loads(buffer[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{name}: the table is no JSON: {error}") from error
    if not isinstance(table, dict):
        raise ModelFileError(f"{name}: the table is a {type(table).__name__}, not an object")
    data = size - 8 - length
    return tuple(_tensor(name, key, entry, data) for key, entry in table.items() if key != "__metadata__")


def read_table(path: Path) -> tuple[TensorSpec, ...]:
    """The tensors of the file at ``path``.

    Raises:
        ModelFileError: it cannot be read, or is no sound safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            return parse_table(path.name, start + file.read(min(length, MAX_TABLE + 1)), size)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror}") from error


def _tensor(name: str, key: str, entry: object, data: int) -> TensorSpec:
    try:
        kind, shape, begin, end = _fields(entry)
        bits = _BITS[kind]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{name}: the entry of tensor {key!r} cannot be understood: {str(entry)[:80]}") from error
    if not 0 <= begin <= end <= data:
        raise ModelFileError(f"{name}: tensor {key!r} lies at {begin}-{end} of {data} bytes: truncated or unsound")
    if math.prod(shape) * bits != (end - begin) * 8:
        raise ModelFileError(
            f"{name}: tensor {key!r} of shape {list(shape)} as {kind} does not take {end - begin} bytes"
        )
    return TensorSpec(key, kind.lower(), shape, end - begin, begin)


def _fields(entry: object) -> tuple[str, tuple[int, ...], int, int]:
    if not isinstance(entry, dict):
        raise TypeError
    table: Mapping[str, object] = entry
    kind, shape, offsets = table["dtype"], table["shape"], table["data_offsets"]
    if not isinstance(kind, str) or not isinstance(shape, list) or not isinstance(offsets, list) or len(offsets) != 2:
        raise TypeError
    if not all(isinstance(each, int) and each >= 0 for each in [*shape, *offsets]):
        raise ValueError
    return kind, tuple(shape), offsets[0], offsets[1]

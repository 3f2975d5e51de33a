"""Parse a GGUF header: metadata and tensor table, no data. Versions 2 and 3, both byte orders."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from velollm_core.errors import ModelFileError
from velollm_core.models.gguf_cursor import ARRAY, FORMATS, STRING, Cursor
from velollm_core.models.metadata import LongArray, Value
from velollm_core.models.spec import TensorSpec
from velollm_core.models.tensor_types import TYPES_BY_ID
from velollm_core.models.wording import one_line

MAX_KEPT = 1024
"""Arrays with more numbers are not kept, only counted: a per-layer array has at most 512."""
MAX_DIMENSIONS = 4
MAX_NAME = 63
MIN_KEY_BYTES, MIN_TENSOR_BYTES = 13, 24
"""The least that a metadata pair and a tensor entry can take in the file: bounds on their counts."""


@frozen
class GgufHeader:
    """What stands before the data. ``data_offset`` is where it begins; ``file_bytes`` the size of the whole file.

    ``data_present`` is False where the file ends before its data: a header fetched on its own.
    """

    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorSpec, ...]
    data_offset: int
    file_bytes: int
    data_present: bool


def parse_header(name: str, buffer: bytes, size: int) -> GgufHeader:
    """Parse the header of a file called ``name`` of ``size`` bytes, of which ``buffer`` holds the beginning.

    Raises:
        HeaderIncomplete: more of the file is needed.
        ModelFileError: it is no GGUF, or no sound one; the text names the key, tensor or offset.
    """
    cursor = Cursor(name, buffer, size)
    version = _open(cursor)
    tensor_count = _count(cursor, "tensors", MIN_TENSOR_BYTES)
    pair_count = _count(cursor, "metadata keys", MIN_KEY_BYTES)
    metadata: dict[str, Value] = {}
    for index in range(pair_count):
        key = _key(cursor, index, metadata)
        metadata[key] = _value(cursor, key)
    alignment = _alignment(name, metadata)
    tensors = _tensors(cursor, tensor_count, alignment)
    data_offset = -(-cursor.position // alignment) * alignment
    data_present = _check_data(name, tensors, data_offset, size)
    return GgufHeader(version, metadata, tensors, data_offset, size, data_present)


def _open(cursor: Cursor) -> int:
    cursor.require(4, "the magic number")
    magic = cursor.buffer[:4]
    if magic != b"GGUF":
        raise ModelFileError(f"{cursor.name}: not a GGUF file: begins with {magic!r} instead of b'GGUF'")
    cursor.position = 4
    version = cursor.integer("I", "the version")
    if version & 0xFFFF == 0:
        cursor.order, cursor.position = ">", 4
        version = cursor.integer("I", "the version")
    if version not in (2, 3):
        raise ModelFileError(f"{cursor.name}: GGUF version {version}; versions 2 and 3 are read")
    return version


def _count(cursor: Cursor, what: str, least: int) -> int:
    count = cursor.integer("Q", f"the number of {what}")
    if count * least > cursor.remaining:
        raise cursor.error(f"{count} {what} cannot fit into the {cursor.remaining} bytes that follow")
    return count


def _key(cursor: Cursor, index: int, seen: Mapping[str, Value]) -> str:
    key = cursor.text(f"the name of metadata key {index}")
    if not key or len(key) > 65535:
        raise cursor.error(f"metadata key {index} has a name of {len(key)} characters")
    if key in seen:
        raise cursor.error(f"metadata key {key!r} stands there twice")
    return key


def _value(cursor: Cursor, key: str) -> Value:
    kind = cursor.integer("I", f"the type of {key}")
    if kind == ARRAY:
        return _array(cursor, key)
    if kind == STRING:
        return cursor.text(key)
    if kind not in FORMATS:
        raise cursor.error(f"{key} has the unknown type {kind}")
    return cursor.number(FORMATS[kind], key)


def _array(cursor: Cursor, key: str) -> Value:
    kind = cursor.integer("I", f"the element type of {key}")
    count = cursor.integer("Q", f"the length of {key}")
    if kind == STRING:
        cursor.skip_texts(count, key)
        return LongArray(count)
    if kind not in FORMATS:
        raise cursor.error(f"{key} is an array of the unknown or nested type {kind}")
    if count > MAX_KEPT:
        cursor.skip(FORMATS[kind], count, key)
        return LongArray(count)
    return cursor.numbers(FORMATS[kind], count, key)


def _alignment(name: str, metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    if not isinstance(value, int) or value <= 0 or value & (value - 1) or value > 1 << 20:
        raise ModelFileError(one_line(f"{name}: general.alignment is {value!r}, not a power of two up to 1 MiB"))
    return value


def _tensors(cursor: Cursor, count: int, alignment: int) -> tuple[TensorSpec, ...]:
    tensors: list[TensorSpec] = []
    seen: set[str] = set()
    expected = 0
    for index in range(count):
        tensor = _tensor(cursor, index)
        if tensor.name in seen:
            raise cursor.error(f"tensor {tensor.name!r} stands there twice")
        if tensor.offset != expected:
            found = f"tensor {tensor.name!r} lies at data offset {tensor.offset} where {expected} is due"
            raise cursor.error(f"{found}: tensors overlap or leave a hole")
        seen.add(tensor.name)
        tensors.append(tensor)
        expected += -(-tensor.bytes // alignment) * alignment
    return tuple(tensors)


def _tensor(cursor: Cursor, index: int) -> TensorSpec:
    name = cursor.text(f"the name of tensor {index}")
    if not name or len(name.encode()) > MAX_NAME:
        raise cursor.error(f"tensor {index} has a name of {len(name.encode())} bytes; 1 to {MAX_NAME} are allowed")
    dimensions = cursor.integer("I", f"the dimensions of {name}")
    if not 0 < dimensions <= MAX_DIMENSIONS:
        raise cursor.error(f"tensor {name!r} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} are allowed")
    shape = tuple(int(length) for length in cursor.numbers("Q", dimensions, f"the shape of {name}"))
    kind = TYPES_BY_ID.get(number := cursor.integer("I", f"the type of {name}"))
    offset = cursor.integer("Q", f"the offset of {name}")
    if kind is None:
        raise cursor.error(f"tensor {name!r} has the unknown type {number}")
    if min(shape) == 0:
        raise cursor.error(f"tensor {name!r} has a dimension of zero: {shape}")
    if shape[0] % kind.block:
        raise cursor.error(
            f"tensor {name!r} has rows of {shape[0]}, not a multiple of {kind.name}'s block {kind.block}"
        )
    elements = 1
    for length in shape:
        elements *= length
    if elements >= 1 << 63:
        raise cursor.error(f"tensor {name!r} has an absurd shape {shape}")
    return TensorSpec(name, kind.name, shape, elements // kind.block * kind.size, offset)


def _check_data(name: str, tensors: tuple[TensorSpec, ...], data_offset: int, size: int) -> bool:
    """Whether the data is there; a file that ends inside it is truncated, one that ends before it is a header."""
    if not tensors or size <= data_offset:
        return not tensors
    for tensor in tensors:
        end = data_offset + tensor.offset + tensor.bytes
        if end > size:
            raise ModelFileError(one_line(f"{name}: truncated: tensor {tensor.name!r} ends at byte {end} of {size}"))
    return True

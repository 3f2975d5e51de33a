"""GGUF files made to order, and the golden headers."""

from __future__ import annotations

import json
import lzma
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from velollm_core.models.building import gguf_spec
from velollm_core.models.gguf import GgufModel, join
from velollm_core.models.gguf_header import parse_header
from velollm_core.models.spec import ModelSpec
from velollm_core.models.tensor_types import TYPES_BY_ID

GOLDEN = Path(__file__).parents[1] / "golden"
TYPE_IDS = {kind.name: number for number, kind in TYPES_BY_ID.items()}


class GgufWriter:
    """Writes a GGUF header, sound unless told otherwise."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, letters: str, *values: float) -> bytes:
        return struct.pack(self.order + letters, *values)

    def text(self, value: str) -> bytes:
        raw = value.encode()
        return self.pack("Q", len(raw)) + raw

    def value(self, value: Any) -> bytes:
        if isinstance(value, bool):
            return self.pack("I?", 7, value)
        if isinstance(value, int):
            return self.pack("Iq", 11, value) if value < 0 else self.pack("IQ", 10, value)
        if isinstance(value, float):
            return self.pack("If", 6, value)
        if isinstance(value, str):
            return self.pack("I", 8) + self.text(value)
        if value and isinstance(value[0], str):
            return self.pack("IIQ", 9, 8, len(value)) + b"".join(self.text(each) for each in value)
        if value and isinstance(value[0], bool):
            return self.pack("IIQ", 9, 7, len(value)) + bytes(value)
        return self.pack("IIQ", 9, 4, len(value)) + self.pack(f"{len(value)}I", *value)

    def tensor(self, name: str, kind: str | int, shape: Sequence[int], offset: int) -> bytes:
        number = TYPE_IDS[kind] if isinstance(kind, str) else kind
        return self.text(name) + self.pack(f"I{len(shape)}QIQ", len(shape), *shape, number, offset)


def write_gguf(
    metadata: Mapping[str, Any],
    tensors: Sequence[tuple[str, str, Sequence[int]]] = (),
    *,
    order: str = "<",
    version: int = 3,
    alignment: int = 32,
    data: bool = True,
    offsets: Mapping[str, int] | None = None,
) -> bytes:
    """A GGUF of zeros with these keys and tensors (name, type, shape)."""
    writer = GgufWriter(order)
    found = b"GGUF" + writer.pack("IQQ", version, len(tensors), len(metadata))
    for key, value in metadata.items():
        found += writer.text(key) + writer.value(value)
    position = 0
    for name, kind, shape in tensors:
        found += writer.tensor(name, kind, shape, (offsets or {}).get(name, position))
        elements = 1
        for length in shape:
            elements *= length
        size = elements // TYPES_BY_ID[TYPE_IDS[kind]].block * TYPES_BY_ID[TYPE_IDS[kind]].size
        position += -(-size // alignment) * alignment
    found += b"\0" * (-len(found) % alignment)
    return found + (b"\0" * position if data else b"")


LLAMA = {
    "general.architecture": "llama",
    "general.name": "Small",
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
TENSORS = (
    ("token_embd.weight", "f16", (64, 3)),
    ("output_norm.weight", "f32", (64,)),
    ("blk.0.ffn_up.weight", "q8_0", (64, 128)),
    ("blk.1.ffn_up.weight", "q4_0", (64, 128)),
)


@pytest.fixture(scope="session")
def gguf() -> Callable[..., bytes]:
    """`write_gguf`: a GGUF made to order."""
    return write_gguf


@pytest.fixture(scope="session")
def writer() -> type[GgufWriter]:
    """`GgufWriter`, for headers that no sound writer makes."""
    return GgufWriter


@pytest.fixture
def llama() -> dict[str, Any]:
    """The keys of a two-layer llama."""
    return dict(LLAMA)


@pytest.fixture(scope="session")
def small() -> bytes:
    """A two-layer llama of four tensors, whole."""
    return write_gguf(LLAMA, TENSORS)


@pytest.fixture(scope="session")
def small_tensors() -> Sequence[tuple[str, str, Sequence[int]]]:
    """The tensors of ``small``."""
    return TENSORS


def golden_model(name: str) -> GgufModel:
    """A golden header, as if read from its whole file."""
    folder = GOLDEN / ("headers" if (GOLDEN / "headers" / f"{name}.header.xz").exists() else "big")
    header = lzma.decompress((folder / f"{name}.header.xz").read_bytes())
    size = json.loads((folder / "sizes.json").read_text())[name]["size"]
    return join(name, [parse_header(name, header, size)])


@pytest.fixture(scope="session")
def golden_spec() -> Callable[[str], ModelSpec]:
    """The spec of a golden file by name, each read once."""
    known: dict[str, ModelSpec] = {}

    def spec(name: str) -> ModelSpec:
        if name not in known:
            known[name] = gguf_spec(golden_model(name), name)
        return known[name]

    return spec


@pytest.fixture(scope="session")
def golden_file() -> Callable[[str], Path]:
    """The path of a file in the golden folder."""
    return lambda name: GOLDEN / name

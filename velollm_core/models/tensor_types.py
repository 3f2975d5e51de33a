"""ggml's storage types: how many elements a block holds and how many bytes it takes."""

from __future__ import annotations

from attrs import frozen

from velollm_core.errors import ModelFileError


@frozen
class TensorType:
    """One ggml type: ``block`` elements are stored in ``size`` bytes."""

    name: str
    block: int
    size: int

    @property
    def quantized(self) -> bool:
        """Whether several elements share a block, so that a row must be a multiple of it."""
        return self.block > 1

    def row_bytes(self, elements: int) -> int:
        """Bytes of ``elements`` in a row, rounded down as ggml does when the row ends inside a block."""
        return self.size * elements // self.block

    def tensor_bytes(self, row: int, *outer: int) -> int:
        """Bytes between the first and the last element of a tensor of rows, ggml's ``nbytes``.

        Where a row ends inside a block, ggml's stride covers whole blocks only; the last row counts in full.
        """
        stride = self.size * (row // self.block)
        total = self.row_bytes(row)
        for length in outer:
            total += (length - 1) * stride
            stride *= length
        return total


# The number is the type's id in a GGUF tensor table.
_TABLE: dict[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4),
    1: ("f16", 1, 2),
    2: ("q4_0", 32, 18),
    3: ("q4_1", 32, 20),
    6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24),
    8: ("q8_0", 32, 34),
    9: ("q8_1", 32, 36),
    10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110),
    12: ("q4_k", 256, 144),
    13: ("q5_k", 256, 176),
    14: ("q6_k", 256, 210),
    15: ("q8_k", 256, 292),
    16: ("iq2_xxs", 256, 66),
    17: ("iq2_xs", 256, 74),
    18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50),
    20: ("iq4_nl", 32, 18),
    21: ("iq3_s", 256, 110),
    22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136),
    24: ("i8", 1, 1),
    25: ("i16", 1, 2),
    26: ("i32", 1, 4),
    27: ("i64", 1, 8),
    28: ("f64", 1, 8),
    29: ("iq1_m", 256, 56),
    30: ("bf16", 1, 2),
    34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66),
    39: ("mxfp4", 32, 17),
    40: ("nvfp4", 64, 36),
    41: ("q1_0", 128, 18),
    42: ("q2_0", 64, 18),
}
TYPES_BY_ID: dict[int, TensorType] = {number: TensorType(*row) for number, row in _TABLE.items()}
TYPES_BY_NAME: dict[str, TensorType] = {kind.name: kind for kind in TYPES_BY_ID.values()}

CACHE_TYPES: tuple[str, ...] = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
"""What llama.cpp takes for a KV cache, largest first."""


def tensor_type(name: str) -> TensorType:
    """The type called ``name`` (any case).

    Raises:
        ModelFileError: there is no such type.
    """
    try:
        return TYPES_BY_NAME[name.lower()]
    except KeyError:
        raise ModelFileError(f"unknown tensor type {name!r}; known: {', '.join(TYPES_BY_NAME)}") from None

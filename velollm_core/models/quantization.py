"""What a file's mix of tensor types is called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from velollm_core.models.spec import TensorSpec

# llama.cpp's numbers in general.file_type.
_FILE_TYPES: dict[int, str] = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
    40: "Q1_0",
    41: "Q2_0",
}


def quantization_label(file_type: int | None, tensors: Sequence[TensorSpec]) -> str:
    """The name that people give the mix: by the file's own word, else the type of most bytes, else ``unknown``."""
    if file_type is not None and file_type in _FILE_TYPES:
        return _FILE_TYPES[file_type]
    total: Counter[str] = Counter()
    for tensor in tensors:
        total[tensor.type] += tensor.bytes
    return total.most_common(1)[0][0].upper() if total else "unknown"

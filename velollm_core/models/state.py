"""The recurrent state to the byte: F32, per sequence, whatever the context."""

from __future__ import annotations

from velollm_core.models.context import Context
from velollm_core.models.spec import ModelSpec

FLOAT = 4


def state_bytes(spec: ModelSpec, context: Context) -> dict[int, int]:
    """Bytes of convolution and state by layer; layers without any are left out."""
    return {
        layer.index: FLOAT * (layer.state_r + layer.state_s) * context.sequences
        for layer in spec.layers
        if layer.recurrent
    }

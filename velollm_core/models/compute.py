"""The scratch memory of one step: an estimate from the widest tensors that live together, as an interval."""

from __future__ import annotations

from velollm_core.figures import Bytes, Interval
from velollm_core.models.context import Context
from velollm_core.models.placement import Placement
from velollm_core.models.spec import ModelSpec


def compute_bytes(spec: ModelSpec, context: Context, placement: Placement) -> dict[str, Bytes]:
    """Bytes of scratch by device."""
    width = max((layer.feed_forward for layer in spec.layers), default=0)
    experts = max((layer.expert_feed_forward for layer in spec.layers), default=0) * max(spec.expert_used, 1)
    heads = max((layer.heads * layer.key_length for layer in spec.layers), default=0)
    row = max(12 * max(width, experts) + 20 * spec.embedding_length, 8 * heads + 20 * spec.embedding_length)
    value = context.ubatch * (row + 4 * context.per_sequence)
    if not context.flash_attn:
        value += context.ubatch * 4 * context.per_sequence * max((layer.heads for layer in spec.layers), default=0)
    estimate = Bytes(value, "formula", Interval(value / 10, value * 4))
    return dict.fromkeys(placement.devices, estimate)

"""The scratch memory of one step, as an estimate within an interval."""

from __future__ import annotations

from velollm_core.figures import Bytes, Interval
from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.context import Context
from velollm_core.models.devices import HOST
from velollm_core.models.kv import layer_cells
from velollm_core.models.placement import Placement
from velollm_core.models.scratch import widest_row
from velollm_core.models.spec import ModelSpec

FLOAT, HALF = 4, 2
SLACK = 2 << 20
"""Small inputs and the graph's own rounding, bytes."""
SPREADS: dict[str, tuple[float, float]] = {
    "dense": (0.9, 1.1),
    "experts": (0.8, 1.2),
    "latent": (0.75, 1.25),
    "recurrent": (0.4, 1.4),
    "sparse": (0.05, 2.5),
    "uncached": (0.4, 2.0),
    "unknown": (0.2, 4.0),
}
"""How far the allocator was seen from the estimate, below and above, by kind of model."""
ON_GPU, BESIDE_GPU = (0.5, 2.0), (0.25, 3.0)
"""Further factors for a GPU's own graph, and for the host where it only feeds GPUs."""


def compute_bytes(
    spec: ModelSpec, context: Context, placement: Placement, *, swa_full: bool = False
) -> dict[str, Bytes]:
    """Bytes of scratch by device: of the step that holds a whole micro-batch, with one row of logits a slot.

    On the CPU the interval holds what llama.cpp's allocator said of some 80 architectures; on GPUs it is wider, since
    their kernels need other copies.
    """
    masks = _mask_row(spec, context, swa_full=swa_full)
    row = FLOAT * widest_row(spec, context) + 40 + masks
    if not context.flash_attn:
        row = max(row, _unfused_row(spec, context, swa_full=swa_full) + masks)
    logits = FLOAT * context.sequences * (spec.vocab_size + 2 * spec.embedding_length)
    value = int(max(_tokens(context) * row, logits))
    low, high = SPREADS[_kind(spec)]
    if len(placement.devices) == 1:
        return {HOST: _within(value, low, high)}
    found = {name: _within(value, low * ON_GPU[0], high * ON_GPU[1]) for name in placement.devices}
    if HOST not in (*placement.layers, *placement.experts, placement.output):
        feeding = int(_tokens(context) * (2 * FLOAT * spec.embedding_length + masks))
        found[HOST] = _within(feeding, *BESIDE_GPU)
    return found


def _within(value: int, low: float, high: float) -> Bytes:
    return Bytes(value, "formula", Interval(int(max(value * low - SLACK, 0)), int(value * high) + SLACK))


def _tokens(context: Context) -> int:
    """Tokens of the step that llama.cpp rehearses: the micro-batch, filled up so that every slot has as many."""
    tokens = min(context.ubatch, context.total)
    return -(-tokens // context.sequences) * context.sequences


def _cells(spec: ModelSpec, context: Context, *, swa_full: bool) -> tuple[int, int]:
    """Cached cells that a token looks at: in layers that see everything, in layers with a window."""
    full = windowed = 0
    for layer in spec.main_layers:
        if layer.caches:
            cells = layer_cells(layer, context, swa_full=swa_full)
            full, windowed = (cells, windowed) if layer.attention == "full" else (full, cells)
    if _kind(spec) == "uncached":
        full = _tokens(context)
    return full, windowed


def _mask_row(spec: ModelSpec, context: Context, *, swa_full: bool) -> int:
    return (HALF if context.flash_attn else FLOAT) * sum(_cells(spec, context, swa_full=swa_full))


def _unfused_row(spec: ModelSpec, context: Context, *, swa_full: bool) -> int:
    """Bytes a token without flash attention: the scores of every head over all cells, and what they are made of."""
    attending = [layer for layer in spec.main_layers if layer.attention != "none"]
    heads = max((layer.heads for layer in attending), default=0)
    width = max((layer.heads * layer.key_length for layer in attending), default=0)
    values = max((layer.kv_heads * layer.value_length for layer in attending), default=0)
    scores = FLOAT * heads * max(_cells(spec, context, swa_full=swa_full))
    return scores + 12 * (spec.embedding_length + width) + 8 * values


def _kind(spec: ModelSpec) -> str:
    rules = ARCHITECTURES.get(spec.architecture)
    layers = spec.main_layers
    if rules is None or rules.odd_graph:
        return "unknown"
    if rules.cache == "none":
        return "uncached"
    if rules.cache == "compressed" or rules.indexer is not None or not spec.tensors:
        return "sparse"
    if any(layer.recurrent for layer in layers) or spec.lookup_bytes > spec.embedding_bytes:
        return "recurrent"
    if any(layer.k_only for layer in layers):
        return "latent"
    return "experts" if spec.expert_count else "dense"

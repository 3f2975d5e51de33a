"""How many floats a token of a micro-batch needs at a layer's widest point, by what stands in the layer.

The counts are of llama.cpp's graph on a CPU: its inputs, the residual, and the tensors that live together while a
feed-forward network, an attention or a recurrence is computed. They were found by asking its allocator.
"""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.context import Context
from velollm_core.models.rules import Recurrence
from velollm_core.models.spec import LayerSpec, ModelSpec, TensorSpec

RESIDUALS = 5
"""Rows of the model's width that live beside whatever is computed."""


def widest_row(spec: ModelSpec, context: Context) -> float:
    """Floats a token at the widest point of the whole graph, masks and logits left out."""
    tensors = {tensor.name: tensor for tensor in spec.tensors}
    rows = [_layer_row(spec, layer, tensors, context) for layer in spec.main_layers]
    return max(rows, default=0) + _per_layer_inputs(spec, tensors) + _sparse_row(spec, tensors, context)


def _layer_row(spec: ModelSpec, layer: LayerSpec, tensors: Mapping[str, TensorSpec], context: Context) -> float:
    residuals = RESIDUALS * spec.embedding_length
    rows: list[float] = [residuals + _dense(layer, tensors), residuals + _attention(layer, tensors)]
    experts = spec.expert_used * (_down(layer, tensors, "exps") or layer.expert_feed_forward or layer.feed_forward)
    if layer.expert_bytes or (spec.expert_count and not tensors):
        rows += [residuals + 3 * experts, 2 * spec.expert_used * spec.embedding_length + experts]
    if layer.recurrent:
        rows.append(residuals + _recurrence(spec, layer, tensors, context))
    return max(rows)


def _down(layer: LayerSpec, tensors: Mapping[str, TensorSpec], suffix: str = "") -> int:
    """The inner width of the feed-forward network, 0 where the layer has none."""
    tensor = tensors.get(f"blk.{layer.index}.ffn_down{'_' if suffix else ''}{suffix}.weight")
    return tensor.shape[0] if tensor else 0


def _dense(layer: LayerSpec, tensors: Mapping[str, TensorSpec]) -> int:
    """Gate, up and their product, or only up where there is no gate."""
    if not tensors:
        return 3 * layer.feed_forward
    width = _down(layer, tensors)
    up = tensors.get(f"blk.{layer.index}.ffn_up.weight")
    fused = up is not None and len(up.shape) > 1 and up.shape[1] == 2 * width
    return 3 * width if fused or f"blk.{layer.index}.ffn_gate.weight" in tensors else width


def _attention(layer: LayerSpec, tensors: Mapping[str, TensorSpec]) -> int:
    """Queries before and after they are rotated; with latents also before they are absorbed."""
    if layer.attention == "none":
        return 0
    queries = layer.heads * layer.key_length
    projected = tensors.get(f"blk.{layer.index}.attn_q_b.weight") or tensors.get(f"blk.{layer.index}.attn_q.weight")
    rows = projected.shape[1] if projected is not None and len(projected.shape) > 1 else queries
    return 2 * queries + rows if layer.k_only else 2 * max(queries, rows)


def _per_layer_inputs(spec: ModelSpec, tensors: Mapping[str, TensorSpec]) -> int:
    """Copies of the per-layer embeddings that a token carries through the graph."""
    table = tensors.get("per_layer_token_embd.weight")
    return table.shape[0] * (4 if spec.architecture == "gemma3n" else 2) if table else 0


def _sparse_row(spec: ModelSpec, tensors: Mapping[str, TensorSpec], context: Context) -> float:
    """Sparse attention: the indexer's queries twice, scores over the cached cells, and every layer's choice of them."""
    if not any(layer.indexer_k for layer in spec.main_layers):
        return 0
    cells = context.per_sequence
    if any(layer.recurrent for layer in spec.main_layers):
        return 5.5 * cells * context.sequences
    if not any(layer.k_only for layer in spec.main_layers):
        return 4 * cells
    names = [f"blk.{layer.index}.indexer.attn_q_b.weight" for layer in spec.main_layers]
    queries = max((tensors[name].shape[1] for name in names if name in tensors), default=0)
    return max(2 * queries + cells / 2, 2 * cells) + len(spec.main_layers) * min(spec.indexer_top_k, cells)


def _recurrence(spec: ModelSpec, layer: LayerSpec, tensors: Mapping[str, TensorSpec], context: Context) -> float:
    """Projections and convolution of a state-space layer, and the states of all slots spread over the micro-batch."""
    state = (layer.state_r + layer.state_s) * context.sequences / max(min(context.ubatch, context.total), 1)
    rule = _rule(spec)
    kind = rule.state if rule else "ssm"
    if kind == "wkv":
        return 15 * spec.embedding_length + state
    if kind == "linear":
        return 4 * spec.embedding_length + 3 * layer.heads * context.ubatch + state
    if kind == "shortconv":
        return 5 * spec.embedding_length
    inner = _out(layer, tensors)
    convolved = _rows(f"blk.{layer.index}.ssm_conv1d.weight", tensors) or inner
    projected = _rows(f"blk.{layer.index}.ssm_in.weight", tensors) or 2 * inner
    if kind == "kda":
        return 6 * inner + state
    if rule and rule.where == "interval":
        return 2 * convolved + inner + state
    return projected + 3 * convolved + state


def _rule(spec: ModelSpec) -> Recurrence | None:
    rules = ARCHITECTURES.get(spec.architecture)
    return rules.recurrence if rules is not None else None


def _rows(name: str, tensors: Mapping[str, TensorSpec]) -> int:
    tensor = tensors.get(name)
    return tensor.shape[1] if tensor is not None and len(tensor.shape) > 1 else 0


def _out(layer: LayerSpec, tensors: Mapping[str, TensorSpec]) -> int:
    for name in ("ssm_out", "attn_output"):
        tensor = tensors.get(f"blk.{layer.index}.{name}.weight")
        if tensor is not None:
            return tensor.shape[0]
    return 0

"""The attention cache to the byte: cells × row bytes, per layer."""

from __future__ import annotations

from velollm_core.models.context import Context, padded
from velollm_core.models.load import LoadSettings
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.models.tensor_types import TensorType, tensor_type


def kv_bytes(spec: ModelSpec, load: LoadSettings, context: Context) -> dict[int, int]:
    """Bytes of K, V and indexer cache by layer; layers without any are left out.

    Without flash attention V is stored transposed, which makes every layer's V row as wide as the widest layer's.
    """
    kind_k, kind_v = tensor_type(load.type_k), tensor_type(load.type_v)
    widest = _widest(spec)
    found = {}
    for layer in spec.layers:
        total = 0
        if layer.caches:
            cells = layer_cells(layer, context, swa_full=load.swa_full)
            streams = context.sequences if layer.per_slot else context.streams
            total += _rows(kind_k, layer.k_row, cells, streams)
            v_row = layer.v_row if context.flash_attn or layer.k_only else widest
            total += _rows(kind_v, v_row, cells, streams)
        total += _compressed(layer, kind_k, context)
        if not layer.compression:
            total += _rows(kind_k, layer.indexer_k, context.per_sequence, context.streams)
            total += _rows(kind_v, layer.indexer_v, context.per_sequence, context.streams)
        if total:
            found[layer.index] = total
    return found


def layer_cells(layer: LayerSpec, context: Context, *, swa_full: bool) -> int:
    """Cells of one stream of the layer's cache, tokens.

    A window's cache holds the window of every slot that shares it and one micro-batch, padded, but never more than
    the whole context.
    """
    if layer.attention not in ("window", "chunk") or swa_full:
        return context.per_sequence
    slots = context.sequences if context.unified and not layer.per_slot else 1
    return padded(min(context.per_sequence, layer.window * slots + context.ubatch))


def _widest(spec: ModelSpec) -> int:
    return max((layer.kv_heads * layer.value_length for layer in spec.layers), default=0)


def _compressed(layer: LayerSpec, kind: TensorType, context: Context) -> int:
    """The cache of one entry per ``compression`` tokens, which has one stream a slot in any case."""
    if not layer.compression or not layer.caches:
        return 0
    cells = padded(max(-(-context.per_sequence // layer.compression), 1))
    row = _rows(kind, layer.k_row, cells, context.sequences)
    return row + _rows(kind, layer.indexer_k, cells, context.sequences)


def _rows(kind: TensorType, row: int, cells: int, streams: int) -> int:
    return kind.tensor_bytes(row, cells, streams) if row and cells else 0

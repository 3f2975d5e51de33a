"""Build a model's layers from its metadata and its architecture's rules."""

from __future__ import annotations

from attrs import evolve, frozen

from velollm_core.models.compressed import compressed_layer
from velollm_core.models.indexers import indexer_rows
from velollm_core.models.metadata import MAX_LAYERS, Metadata
from velollm_core.models.recurrence import recurrent_layers, state_floats
from velollm_core.models.rules import Architecture
from velollm_core.models.spec import Attention, LayerSpec
from velollm_core.models.windows import window_width, windowed_layers

Lengths = tuple[int, int]


@frozen
class Shape:
    """What the metadata says of all blocks, next-token-prediction ones included; one entry per block."""

    heads: tuple[int, ...]
    kv_heads: tuple[int, ...]
    feed_forward: tuple[int, ...]
    expert_feed_forward: tuple[int, ...]
    windowed: tuple[bool, ...]
    recurrent: tuple[bool, ...]
    main_blocks: int
    window: int | None
    latent: bool


def build_layers(rules: Architecture, metadata: Metadata, nextn: int) -> tuple[LayerSpec, ...]:
    """One `LayerSpec` per block of the model, weights not yet counted.

    Raises:
        ModelFileError: a key is missing or wrong; the text names it.
    """
    shape = _shape(rules, metadata, metadata.block_count, nextn)
    lengths = _lengths(rules, metadata, shape.heads[0])
    state = (0, 0)
    if rules.recurrence is not None and any(shape.recurrent):
        state = state_floats(rules.recurrence, metadata, shape.heads[0], lengths[0][0])
    keys, values = indexer_rows(rules.indexer, metadata, shape.main_blocks, shape.recurrent, lengths[0][1])
    layers = []
    for index in range(metadata.block_count):
        layer = _layer(rules, shape, index, lengths[1 if shape.windowed[index] else 0])
        if shape.recurrent[index]:
            layer = evolve(layer, state_r=state[0], state_s=state[1])
        layers.append(evolve(layer, indexer_k=keys[index], indexer_v=0 if shape.latent else values[index]))
    if rules.cache == "compressed":
        layers = [compressed_layer(layer, metadata) for layer in layers]
    return _with_shared(rules, metadata, _with_extra(rules, metadata, layers))


def _shape(rules: Architecture, metadata: Metadata, blocks: int, nextn: int) -> Shape:
    heads = metadata.per_layer("{a}.attention.head_count", blocks, 0)
    kv_heads = metadata.per_layer("{a}.attention.head_count_kv", blocks, heads)
    feed_forward = metadata.per_layer("{a}.feed_forward_length", blocks, 0)
    window = window_width(rules.window, metadata, blocks - nextn)
    windowed = (False,) * blocks
    if rules.window is not None and window is not None:
        windowed = windowed_layers(rules.window, metadata, blocks, blocks - nextn)
    latent_keys = ("{a}.attention.key_length_mla", "{a}.attention.value_length_mla")
    return Shape(
        heads=heads,
        kv_heads=kv_heads,
        feed_forward=feed_forward,
        expert_feed_forward=metadata.per_layer("{a}.expert_feed_forward_length", blocks, 0),
        windowed=windowed,
        recurrent=recurrent_layers(rules.recurrence, metadata, kv_heads, feed_forward, blocks - nextn),
        main_blocks=blocks - nextn,
        window=window,
        latent=rules.latent and all(metadata.integer(key, 0) for key in latent_keys),
    )


def _lengths(rules: Architecture, metadata: Metadata, heads: int) -> tuple[Lengths, Lengths]:
    """Key and value length of a head: in layers that see everything, in layers with a window."""
    default = metadata.integer("{a}.embedding_length") // heads if heads else 0
    key = value = 0
    if heads or rules.lengths_without_heads:
        key = metadata.integer("{a}.attention.key_length", default)
        value = metadata.integer("{a}.attention.value_length", default)
    if rules.value_is_latent:
        value = metadata.integer("{a}.attention.kv_lora_rank")
    key_window = metadata.integer("{a}.attention.key_length_swa", key)
    return (key, value), (key_window, metadata.integer("{a}.attention.value_length_swa", value))


def _layer(rules: Architecture, shape: Shape, index: int, lengths: Lengths) -> LayerSpec:
    attends = not shape.recurrent[index] or (rules.recurrence is not None and rules.recurrence.beside_attention)
    nextn = index >= shape.main_blocks
    kind: Attention = "full" if attends else "none"
    if attends and shape.windowed[index] and rules.window is not None:
        kind = rules.window.kind
    if rules.recurrence is not None and rules.recurrence.where == "no_kv_heads_nor_ffn" and shape.feed_forward[index]:
        attends, kind = False, "none"
    return LayerSpec(
        index=index,
        attention=kind,
        heads=shape.heads[index],
        kv_heads=shape.kv_heads[index],
        key_length=lengths[0],
        value_length=lengths[1],
        window=shape.window or 0 if kind in ("window", "chunk") else 0,
        k_only=shape.latent,
        caches=attends and rules.cache in ("attention", "compressed") and (not nextn or _nextn_caches(rules)),
        feed_forward=shape.feed_forward[index],
        expert_feed_forward=shape.expert_feed_forward[index],
        nextn=nextn,
    )


def _nextn_caches(rules: Architecture) -> bool:
    return rules.nextn_caches or (rules.recurrence is not None and rules.recurrence.nextn_caches)


def _with_extra(rules: Architecture, metadata: Metadata, layers: list[LayerSpec]) -> list[LayerSpec]:
    """Add the cache that is not a block's: a router's layer, and the repetitions of looped blocks."""
    if rules.router_layer:
        main = next(layer for layer in layers if not layer.nextn)
        layers.append(evolve(main, index=len(layers), heads=1, kv_heads=1, feed_forward=0, expert_feed_forward=0))
    loops = metadata.integer(rules.loops_key, 1) if rules.loops_key else 1
    if not 0 < loops * len(layers) <= MAX_LAYERS:
        raise metadata.error(rules.loops_key or "", f"1 to {MAX_LAYERS // len(layers)}")
    blocks = len(layers)
    return [evolve(layers[index % blocks], index=index) for index in range(blocks * loops)]


def _with_shared(rules: Architecture, metadata: Metadata, layers: list[LayerSpec]) -> tuple[LayerSpec, ...]:
    """Mark the last layers as reusing others' KV where the architecture has it so."""
    cached = rules.cached_blocks
    if rules.shared_key is not None:
        cached = max(len(layers) - metadata.integer(rules.shared_key, 0), 0)
    if cached is None:
        return tuple(layers)
    return tuple(layer if layer.index < cached else evolve(layer, caches=False) for layer in layers)

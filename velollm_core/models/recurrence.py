"""Which layers keep a recurrent state, and how many floats of it a sequence takes."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.models.metadata import Metadata
from velollm_core.models.rules import Recurrence


def recurrent_layers(
    rule: Recurrence | None, metadata: Metadata, kv_heads: Sequence[int], feed_forward: Sequence[int], main_blocks: int
) -> tuple[bool, ...]:
    """One flag per block: whether it keeps a state."""
    blocks = len(kv_heads)
    if rule is None:
        return (False,) * blocks
    if rule.where == "everywhere":
        return tuple(layer < main_blocks for layer in range(blocks))
    if rule.where == "interval":
        return _by_interval(rule, metadata, blocks, main_blocks)
    without = [heads == 0 for heads in kv_heads]
    if rule.where == "no_kv_heads_nor_ffn":
        without = [none and width == 0 for none, width in zip(without, feed_forward, strict=True)]
    return tuple(none and layer < main_blocks for layer, none in enumerate(without))


def _by_interval(rule: Recurrence, metadata: Metadata, blocks: int, main_blocks: int) -> tuple[bool, ...]:
    key = "{a}.attention.recurrent_layers"
    if metadata.has(key):
        flags = metadata.per_layer(key, blocks)
        return tuple(bool(flag) and layer < main_blocks for layer, flag in enumerate(flags))
    interval = metadata.integer("{a}.full_attention_interval", rule.interval)
    if interval == 0:
        raise metadata.error("{a}.full_attention_interval", "at least 1")
    return tuple(layer < main_blocks and (layer + 1) % interval != 0 for layer in range(blocks))


def state_floats(rule: Recurrence, metadata: Metadata, heads: int, key_length: int) -> tuple[int, int]:
    """The convolution's and the state's floats per sequence of one recurrent layer."""
    embedding = metadata.integer("{a}.embedding_length")
    if rule.state == "wkv":
        return metadata.integer("{a}.token_shift_count", 2) * embedding, embedding * metadata.integer(
            "{a}.wkv.head_size"
        )
    if rule.state == "shortconv":
        return embedding * max(metadata.integer("{a}.shortconv.l_cache") - 1, 0), 0
    if rule.state == "linear":
        return 0, key_length * key_length * heads
    kernel = metadata.integer("{a}.ssm.conv_kernel")
    if rule.state == "kda":
        width = metadata.integer("{a}.kda.head_dim")
        return 3 * (kernel - 1 if kernel else 3) * heads * width, width * width * heads
    inner, state = metadata.integer("{a}.ssm.inner_size"), metadata.integer("{a}.ssm.state_size")
    groups = 0 if rule.state == "ssm_ungrouped" else metadata.integer("{a}.ssm.group_count")
    return max(kernel - 1, 0) * (inner + 2 * groups * state), state * inner

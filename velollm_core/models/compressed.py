"""DeepSeek-V4's caches: a window of raw keys, and further back one compressed key per 4 or 128 tokens."""

from __future__ import annotations

from attrs import evolve

from velollm_core.models.metadata import Metadata
from velollm_core.models.spec import LayerSpec

SPARSE_RATIO, HEAVY_RATIO = 4, 128
RATIOS_KEY = "{a}.attention.compress_ratios"


def compressed_layer(layer: LayerSpec, metadata: Metadata) -> LayerSpec:
    """Give ``layer`` its compression, its indexer (only at ratio 4) and the compressors' state.

    A compressor keeps keys and scores of the tokens that it has not yet compressed: two tables of F32, of twice its
    ratio and twice the width at ratio 4, of its ratio and width at 128.

    Raises:
        ModelFileError: the ratios are missing or too few.
    """
    ratios = metadata.counts(RATIOS_KEY)
    if ratios is None or len(ratios) < metadata.block_count:
        raise metadata.error(RATIOS_KEY, f"an array of {metadata.block_count}")
    ratio, key = ratios[layer.index], layer.key_length
    indexer = metadata.integer("{a}.attention.indexer.key_length") if ratio == SPARSE_RATIO else 0
    state = 2 * HEAVY_RATIO * key if ratio == HEAVY_RATIO else 0
    if ratio == SPARSE_RATIO:
        state = 2 * (2 * SPARSE_RATIO) * 2 * (key + indexer)
    return evolve(
        layer,
        k_only=True,
        per_slot=True,
        compression=ratio if ratio in (SPARSE_RATIO, HEAVY_RATIO) else 0,
        indexer_k=indexer,
        indexer_v=0,
        state_s=0 if layer.nextn else state,
    )

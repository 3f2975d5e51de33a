"""What llama.cpp refuses to load, with its reason: a planner must not promise it."""

from __future__ import annotations

from collections.abc import Sequence

from velollm_core.errors import ModelRefused
from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.context import Context
from velollm_core.models.load import LoadSettings
from velollm_core.models.metadata import Metadata
from velollm_core.models.rules import Architecture
from velollm_core.models.spec import LayerSpec, ModelSpec
from velollm_core.models.tensor_types import CACHE_TYPES, TensorType, tensor_type
from velollm_core.models.windows import window_width

MAX_SEQUENCES = 256


def model_refusal(
    rules: Architecture | None, metadata: Metadata, layers: Sequence[LayerSpec], experts: int, used: int
) -> str | None:
    """Why llama.cpp would not load this model with any settings; None if it would."""
    if rules is not None and rules.cache == "draft":
        return "it is a draft that only runs beside its target model"
    if all(layer.nextn for layer in layers):
        return "it holds only next-token-prediction layers, a draft for another model"
    if used > experts or (experts and not used):
        return f"it says that {used} of {experts} experts are used"
    if rules is None or rules.recurrence is not None or rules.cache != "attention":
        return None
    if not all(_shares_alike(layer, layers) for layer in layers):
        return "a layer without KV would reuse that of a layer of another kind"
    main = [layer for layer in layers if not layer.nextn]
    if any(layer.attention != "full" for layer in main):
        return None
    if window_width(rules.window, metadata, len(main)) is not None:
        return "it has a sliding window, but by its pattern no layer uses it"
    return None


def _shares_alike(layer: LayerSpec, layers: Sequence[LayerSpec]) -> bool:
    """A layer without KV takes the last cached one's, or the one's before that if it has a window: of its kind."""
    if layer.caches or layer.nextn:
        return True
    cached = sum(each.caches for each in layers)
    lender = cached - (1 if layer.attention == "full" else 2)
    return lender >= 0 and layers[lender].attention == layer.attention


def check(spec: ModelSpec, load: LoadSettings, context: Context) -> None:
    """Refuse what llama.cpp would refuse.

    Raises:
        ModelRefused: with llama.cpp's reason, in words.
        ModelFileError: a cache type that does not exist.
    """
    reason = spec.refusal or _context_refusal(load, context) or _cache_refusal(spec, load, context)
    reason = reason or _slots_refusal(spec, context)
    if reason:
        raise ModelRefused(f"{spec.name}: llama.cpp would refuse this: {reason}")


def _context_refusal(load: LoadSettings, context: Context) -> str | None:
    if not 0 < context.sequences <= MAX_SEQUENCES:
        return f"{context.sequences} sequences at a time; 1 to {MAX_SEQUENCES} are possible"
    if load.batch <= 0 and load.ubatch <= 0:
        return "a batch of no tokens"
    if context.total <= 0:
        return "a context of no tokens"
    return None


def _cache_refusal(spec: ModelSpec, load: LoadSettings, context: Context) -> str | None:
    for name in (load.type_k, load.type_v):
        if name.lower() not in CACHE_TYPES:
            return f"{name!r} is no cache type; possible: {', '.join(CACHE_TYPES)}"
    kind_k, kind_v = tensor_type(load.type_k), tensor_type(load.type_v)
    if kind_k != kind_v and any(layer.k_only for layer in spec.layers):
        return f"this model caches K and V as one, so the types {load.type_k} and {load.type_v} must be the same"
    if kind_v.quantized and not context.flash_attn:
        return f"a quantized V cache ({load.type_v}) needs flash attention, which is off"
    for layer in spec.main_layers if context.flash_attn else ():
        if kind_k.quantized and layer.key_length % kind_k.block:
            return f"blocks of {kind_k.block} ({kind_k.name}) do not divide the K head size {layer.key_length}"
        if kind_v.quantized and layer.value_length % kind_v.block:
            return f"blocks of {kind_v.block} ({kind_v.name}) do not divide the V head size {layer.value_length}"
    return _broken_rows(spec, kind_k)


def _broken_rows(spec: ModelSpec, kind: TensorType) -> str | None:
    """Rows that end inside a block abort llama.cpp; it checks no indexer, and nothing without flash attention."""
    for layer in spec.layers:
        for row in (layer.k_row if layer.caches else 0, layer.indexer_k):
            if not _fits(kind, row):
                return f"rows of {row} K elements do not fill blocks of {kind.block} ({kind.name}): it would abort"
    return None


def _slots_refusal(spec: ModelSpec, context: Context) -> str | None:
    rules = ARCHITECTURES.get(spec.architecture)
    if rules is None or not rules.reserves_one_slot or context.unified:
        return None
    tokens = min(context.total, context.ubatch)
    attends = any(layer.caches for layer in spec.main_layers[:-1])
    if attends and tokens % context.sequences:
        return f"with separate caches {context.sequences} slots must divide the micro-batch of {tokens}: it would abort"
    return None


def _fits(kind: TensorType, row: int, rows: int = 256) -> bool:
    """Whether a view of all rows lies inside the cache's tensor, by ggml's own rounding."""
    return kind.row_bytes(row) * rows <= kind.tensor_bytes(row, rows)

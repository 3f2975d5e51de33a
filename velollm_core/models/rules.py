"""What an architecture's name decides and its header does not say: the vocabulary of `architectures`."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.models.spec import Attention

Cache = Literal["attention", "compressed", "none", "draft"]
RecurrentWhere = Literal["no_kv_heads", "no_kv_heads_nor_ffn", "interval", "everywhere"]
State = Literal["ssm", "ssm_ungrouped", "shortconv", "kda", "linear", "wkv"]
IndexerWhere = Literal["every_layer", "listed", "behind_dense"]


@frozen
class Window:
    """Which layers see only the last tokens, and how many.

    ``period`` p: each p-th layer sees everything, the last of a group or with ``full_first`` the first; the key
    ``attention.sliding_window_pattern`` overrides it, as another period or as one flag per layer. None: only the
    flags say it. 0: every attention layer, whatever the key says. ``forced`` is the width whatever the key says,
    ``default`` where it is missing. With ``optional`` no key or a width of 0 means that there is no window.
    ``block_count``: only models of so many blocks have it.
    """

    period: int | None
    full_first: bool = False
    default: int | None = None
    forced: int | None = None
    optional: bool = False
    kind: Attention = "window"
    block_count: int | None = None


@frozen
class Recurrence:
    """Which layers keep a state per sequence, and of what shape.

    ``interval`` n: all but each n-th layer, unless ``attention.recurrent_layers`` or ``full_attention_interval`` say
    otherwise. ``beside_attention``: the layer attends as well. ``nextn_caches``: next-token-prediction layers, being
    attention layers, take cache although nothing uses it.
    """

    where: RecurrentWhere
    state: State
    interval: int = 4
    beside_attention: bool = False
    nextn_caches: bool = False


@frozen
class Indexer:
    """The second cache of sparse attention: one key of ``attention.indexer.key_length`` a token and layer.

    ``listed``: layers flagged by ``attention.indexer.types``; ``fallback`` is the rule without that key.
    ``pooled`` keys take that many slots where ``pooled_key`` says that keys are pooled. ``with_values``: a value row
    as well, unless K and V are cached as one. ``optional``: without its keys there is none.
    """

    where: IndexerWhere
    fallback: Literal["none", "all", "glm"] = "none"
    pooled: int = 1
    pooled_key: str = ""
    with_values: bool = False
    optional: bool = False


@frozen
class Architecture:
    """All that is special about an architecture; the defaults are a plain transformer.

    ``latent``: whether ``key_length_mla`` and ``value_length_mla`` make it cache latents, K only.
    ``cached_blocks``: how many layers own KV, the rest reuse it; ``shared_key``: the key that says how many reuse.
    ``nextn_caches``: see `Recurrence`. ``flash_attention``: whether llama.cpp can use it at all.
    ``embedding_twice``: a tied embedding is held twice when it is not mapped. ``router_layer``: one more layer of one
    head. ``loops_key``: the key that says how often the blocks are run. ``lengths_without_heads``: the head size
    counts even where the first layer has no heads. ``value_is_latent``: the value length is the latent's rank.
    ``reserves_one_slot``: llama.cpp rehearses a whole micro-batch in one slot, which aborts where separate caches do
    not divide it. ``odd_graph``: a step's scratch follows no count that VeloLLM knows.
    """

    window: Window | None = None
    recurrence: Recurrence | None = None
    indexer: Indexer | None = None
    cache: Cache = "attention"
    latent: bool = False
    cached_blocks: int | None = None
    shared_key: str | None = None
    nextn_caches: bool = False
    flash_attention: bool = True
    embedding_twice: bool = False
    router_layer: bool = False
    loops_key: str | None = None
    lengths_without_heads: bool = False
    value_is_latent: bool = False
    reserves_one_slot: bool = False
    odd_graph: bool = False

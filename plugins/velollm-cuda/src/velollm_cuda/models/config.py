"""What a model's `config.json` says, in one family's words or another's, as one value."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.engine.layout import KVCacheLayout, KVGroup


@frozen
class RopeConfig:
    """Rotary embedding of one kind of layer: frequencies ``theta ** (-2i / size)``, scaled as ``kind`` says.

    ``linear`` divides positions by ``factor``; ``llama3`` slows the low frequencies down and keeps the high ones
    (Llama 3.1's rule, with ``low`` and ``high`` wavelength factors of the ``original`` context). ``yarn`` slows those
    down that turn less than ``slow`` times in the ``original`` context, keeps those that turn more than ``fast``
    times, and goes over from one to the other between (at ``whole`` dimensions); ``magnitude`` then multiplies
    cosine and sine (YaRN, Peng et al., 2023).
    """

    theta: float = 10000.0
    kind: Literal["default", "linear", "llama3", "yarn"] = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    original: int = 8192
    fast: float = 32.0
    slow: float = 1.0
    whole: bool = True
    magnitude: float = 1.0


@frozen
class ModelConfig:
    """A decoder-only transformer. Lengths are elements; ``windows`` holds each layer's sliding window, 0 without one.

    ``unit_norm`` marks norm weights stored as a difference from one; ``post_norms`` a norm behind each sub-layer as
    well; ``query_bias`` biases on queries, keys and values; ``qk_norm`` norms per head. ``attention_softcap`` and
    ``logit_softcap`` are 0 without one; ``embedding_scale`` multiplies the embeddings.
    """

    family: str
    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    context: int
    epsilon: float
    rope: RopeConfig
    local_rope: RopeConfig
    windows: tuple[int, ...]
    scale: float
    tied: bool = False
    query_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    unit_norm: bool = False
    gelu: bool = False
    embedding_scale: float = 1.0
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    eos: tuple[int, ...] = ()
    dtype: str = "bfloat16"

    @property
    def group(self) -> int:
        """Query heads a KV head serves."""
        return self.heads // self.kv_heads

    @property
    def kv_windows(self) -> tuple[int, ...]:
        """The window of each KV group, 0 (full attention) first: the order of `layout`."""
        return tuple(sorted(set(self.windows)))

    @property
    def group_of_layer(self) -> tuple[int, ...]:
        """The KV group of each layer."""
        return tuple(self.kv_windows.index(window) for window in self.windows)

    @property
    def parameters(self) -> int:
        """Weights, embeddings once where the head is tied to them."""
        return self.body_parameters + self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def body_parameters(self) -> int:
        """Weights of the layers' matrix products."""
        attention = self.hidden * self.head_size * 2 * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    def layout(self, block_size: int, bytes_per_element: int) -> KVCacheLayout:
        """The KV cache of this model: a group for full attention, one for each window."""
        row = 2 * self.kv_heads * self.head_size * bytes_per_element
        groups = tuple(
            KVGroup(self.windows.count(window), self.windows.count(window) * row, window or None)
            for window in self.kv_windows
        )
        return KVCacheLayout(groups, block_size, min(self.context, 8192))

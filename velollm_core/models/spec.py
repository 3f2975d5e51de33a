"""A model's shape: what each layer caches and weighs. Read from a GGUF header, an HF config or Ollama's answer."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Attention = Literal["full", "window", "chunk", "none"]
Format = Literal["gguf", "safetensors", "ollama"]


@frozen
class TensorSpec:
    """One tensor of the file: ``type`` is ggml's lower-case name (``q4_k``), ``shape`` in GGUF order (row first).

    ``offset`` counts bytes from the start of its file's data section, ``part`` the file of a split model.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    bytes: int
    offset: int = 0
    part: int = 0


@frozen
class LayerSpec:
    """One block: what it caches per token, what it keeps per sequence, what it weighs.

    Lengths are elements, not bytes: a token's K row has ``kv_heads * key_length`` elements. With ``k_only`` (latent
    attention: one head of rank + rope) no V is cached, since it is read out of K.
    ``window`` is in tokens, 0 without one. ``caches`` is False for a layer that reuses another's KV, has none, or is
    a next-token-prediction layer (``nextn``), which is not loaded unless speculating.
    ``indexer_k`` and ``indexer_v`` are the rows of a sparse-attention indexer's own cache; ``compression`` n adds a
    cache of one entry per n tokens, to which the indexer then belongs. ``per_slot``: slots never share this layer's
    cache, even where they share one.
    ``state_r`` and ``state_s`` are the recurrent state in F32 elements per sequence.
    ``feed_forward`` is the dense width, ``expert_feed_forward`` one routed expert's.
    ``dense_bytes`` counts all weights but the routed experts, ``expert_bytes`` all routed experts together.
    """

    index: int
    attention: Attention = "full"
    heads: int = 0
    kv_heads: int = 0
    key_length: int = 0
    value_length: int = 0
    window: int = 0
    k_only: bool = False
    caches: bool = True
    compression: int = 0
    per_slot: bool = False
    indexer_k: int = 0
    indexer_v: int = 0
    state_r: int = 0
    state_s: int = 0
    feed_forward: int = 0
    expert_feed_forward: int = 0
    nextn: bool = False
    dense_bytes: int = 0
    expert_bytes: int = 0

    @property
    def k_row(self) -> int:
        """Elements of K a token takes here, if the layer caches."""
        return self.kv_heads * self.key_length

    @property
    def v_row(self) -> int:
        """Elements of V a token takes here, if the layer caches."""
        return 0 if self.k_only else self.kv_heads * self.value_length

    @property
    def recurrent(self) -> bool:
        """Whether the layer keeps a state per sequence (beside, or instead of, attention)."""
        return self.state_r + self.state_s > 0

    @property
    def bytes(self) -> int:
        """Bytes of all weights of the layer."""
        return self.dense_bytes + self.expert_bytes


@frozen
class ModelSpec:
    """What `optimize` reasons over.

    ``source`` is a path, URL or Ollama name. ``context_length`` is the trained one, tokens. ``layers`` holds every
    block of the file, next-token-prediction ones last. Byte figures are the file's own tensors: ``embedding_bytes``
    the token embeddings, ``lookup_bytes`` further tables of which a token reads a few rows (per-layer embeddings,
    positions), ``output_bytes`` the head, 0 where ``tied_output`` says that the embeddings serve as head,
    ``other_bytes`` the few tensors outside all blocks. ``tensors`` is empty where only the config is known.
    ``indexer_top_k`` is how many cached tokens a sparse-attention indexer picks for a query.
    ``data_present`` is False for a header without its data, as fetched before a download; ``header`` is then, for a
    remote model, the file on this machine that holds the header.
    ``notes`` say what the reader could not know; ``refusal`` why the engine would not load it.
    """

    name: str
    architecture: str
    source: str
    format: Format
    context_length: int
    embedding_length: int
    vocab_size: int
    layers: tuple[LayerSpec, ...]
    embedding_bytes: int = 0
    lookup_bytes: int = 0
    output_bytes: int = 0
    other_bytes: int = 0
    tied_output: bool = False
    expert_count: int = 0
    expert_used: int = 0
    indexer_top_k: int = 0
    parameters: int = 0
    quantization: str = "unknown"
    tokenizer: str = ""
    file_bytes: int | None = None
    data_present: bool = True
    header: str | None = None
    tensors: tuple[TensorSpec, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str | None = None

    @property
    def block_count(self) -> int:
        """Blocks in the file, next-token-prediction ones included."""
        return len(self.layers)

    @property
    def main_layers(self) -> tuple[LayerSpec, ...]:
        """The blocks that every token passes."""
        return tuple(layer for layer in self.layers if not layer.nextn)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors that serve text."""
        outside = self.embedding_bytes + self.lookup_bytes + self.output_bytes + self.other_bytes
        return outside + sum(layer.bytes for layer in self.layers)

    @property
    def head_bytes(self) -> int:
        """Bytes read to turn one hidden state into logits."""
        return self.embedding_bytes if self.tied_output else self.output_bytes

"""The one transformer that every family is a case of: the forward pass over a paged cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from attrs import define, field
from torch import Tensor
from torch.nn.functional import embedding

from velollm_cuda.batch import Batch
from velollm_cuda.kernels.choice import Kernels
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.parameters import LayerParameters, Parameters
from velollm_cuda.models.rope import rope_tables

Linear = Callable[..., Tensor]
KVCache = Sequence[tuple[Tensor, Tensor]]


@define
class Transformer:
    """A model's shape, its parameters, and the kernels to run it with.

    ``scales`` holds for each layer what a key and a value of an FP8 cache are multiplied by; ``linear`` is who
    multiplies, the kernels' own unless it is replaced.
    """

    config: ModelConfig
    parameters: Parameters
    kernels: Kernels
    scales: tuple[tuple[float, float], ...] = ()
    ropes: tuple[tuple[Tensor, Tensor], ...] = field(init=False)
    linear: Linear = field(init=False)

    def __attrs_post_init__(self) -> None:
        config, device = self.config, self.parameters.embedding.device
        whole, local = (
            rope_tables(rope, config.head_size, config.context, device) for rope in (config.rope, config.local_rope)
        )
        self.ropes = tuple(local if window else whole for window in config.windows)
        self.linear = self.kernels.linear
        self.scales = self.scales or ((1.0, 1.0),) * config.layers

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Hidden states ``[T, hidden]`` behind the last norm; keys and values of the batch's tokens enter ``cache``.

        ``cache`` holds a key and a value tensor ``[num_blocks, block_size, K, D]`` for each layer.
        """
        config, kernels = self.config, self.kernels
        residual = embedding(batch.token_ids, self.parameters.embedding)
        if config.embedding_scale != 1.0:
            residual = residual * torch.tensor(config.embedding_scale, dtype=residual.dtype).item()
        delta: Tensor | None = None
        for index, layer in enumerate(self.parameters.layers):
            normed = self._norm(delta, residual, layer.input_norm)
            attended = self._attention(index, layer, normed, batch, cache[index])
            attended = self.linear(attended, layer.output, layer.output_bias)
            attended = self._post(attended, layer.attention_post_norm)
            normed = kernels.rms_norm(attended, layer.feed_forward_norm, config.epsilon, residual)
            gate = kernels.gelu_mul if config.gelu else kernels.silu_mul
            delta = self.linear(gate(self.linear(normed, layer.gate_up)), layer.down)
            delta = self._post(delta, layer.feed_forward_post_norm)
        return self._norm(delta, residual, self.parameters.norm)

    @property
    def matrices(self) -> Iterator[Tensor]:
        """What tokens are multiplied by in the layers, ``[N, K]``."""
        for layer in self.parameters.layers:
            yield from (layer.qkv, layer.output, layer.gate_up, layer.down)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits ``[R, vocabulary]`` of hidden states ``[R, hidden]``."""
        logits = self.linear(hidden, self.parameters.head)
        if cap := self.config.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        return logits

    def _attention(
        self, index: int, layer: LayerParameters, x: Tensor, batch: Batch, cache: tuple[Tensor, Tensor]
    ) -> Tensor:
        config, (key_scale, value_scale) = self.config, self.scales[index]
        group = config.group_of_layer[index]
        qkv = self.linear(x, layer.qkv, layer.qkv_bias)
        query = self.kernels.rope_store(
            qkv, *self.ropes[index], batch.positions, batch.slots[group], *cache, config.heads,
            query_norm=layer.query_norm, key_norm=layer.key_norm, epsilon=config.epsilon,
            key_scale=key_scale, value_scale=value_scale,
        )  # fmt: skip
        attended = batch.attend(
            query, *cache, group, scale=config.scale, window=config.windows[index], softcap=config.attention_softcap,
            key_scale=key_scale, value_scale=value_scale,
        )  # fmt: skip
        return attended.flatten(1)

    def _norm(self, delta: Tensor | None, residual: Tensor, weight: Tensor) -> Tensor:
        if delta is None:
            return self.kernels.rms_norm(residual, weight, self.config.epsilon)
        return self.kernels.rms_norm(delta, weight, self.config.epsilon, residual)

    def _post(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else self.kernels.rms_norm(x, weight, self.config.epsilon)

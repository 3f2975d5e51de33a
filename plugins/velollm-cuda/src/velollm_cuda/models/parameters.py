"""A model's parameters: fused where one matrix product can serve, and nothing else."""

from __future__ import annotations

from attrs import astuple, frozen
from torch import Tensor


@frozen
class LayerParameters:
    """One layer. Matrices are ``[out, in]``; ``qkv`` stacks query, key and value, ``gate_up`` gate and up.

    Norm weights are fp32; those a family does not have are None.
    """

    input_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Tensor
    output_bias: Tensor | None
    attention_post_norm: Tensor | None
    feed_forward_norm: Tensor
    gate_up: Tensor
    down: Tensor
    feed_forward_post_norm: Tensor | None


@frozen
class Parameters:
    """The whole model; ``head`` is ``embedding`` itself where the two are tied."""

    embedding: Tensor
    layers: tuple[LayerParameters, ...]
    norm: Tensor
    head: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor once."""
        mine = [self.embedding, self.head, self.norm]
        for layer in self.layers:
            mine += [each for each in astuple(layer, recurse=False) if each is not None]
        return tuple({id(each): each for each in mine}.values())

    @property
    def bytes(self) -> int:
        """Bytes of all parameters."""
        return sum(tensor.nbytes for tensor in self.tensors)

"""The weights to the byte, as llama.cpp loads them, per device."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.devices import HOST
from velollm_core.models.placement import Placement
from velollm_core.models.spec import ModelSpec, TensorSpec
from velollm_core.models.tensor_types import TYPES_BY_NAME
from velollm_core.models.weight_groups import block_of, is_expert

HOST_ALIGNMENT, GPU_ALIGNMENT = 32, 128
GPU_ROW = 512
"""A quantized row on a GPU is filled up to this many elements."""
_INPUT = ("token_embd.", "position_embd.", "token_types.", "per_layer_token_embd.")
_FIRST = ("rope_freqs.", "rope_factors_", "per_layer_model_proj.", "per_layer_proj_norm.")


def weight_bytes(spec: ModelSpec, placement: Placement, *, mmap: bool) -> dict[str, int]:
    """Bytes of weights by device.

    Next-token-prediction layers are not loaded. Mapped weights on the host take their own bytes, read ones are each
    padded to the buffer's alignment. A tied embedding is copied to the GPU that holds the output.
    """
    if not spec.tensors:
        return _by_group(spec, placement)
    total: dict[str, int] = defaultdict(int)
    for tensor, device in loaded_tensors(spec, placement, mmap=mmap):
        total[device] += _bytes_on(tensor, device, mmap=mmap)
    return total


def loaded_tensors(spec: ModelSpec, placement: Placement, *, mmap: bool) -> Iterator[tuple[TensorSpec, str]]:
    """Every tensor that is loaded with its device, copies included."""
    unused = {layer.index for layer in spec.layers if layer.nextn}
    rules = ARCHITECTURES.get(spec.architecture)
    for tensor in spec.tensors:
        if block_of(tensor.name) in unused:
            continue
        yield tensor, tensor_device(tensor, placement)
        if spec.tied_output and tensor.name == "token_embd.weight":
            twice = rules is not None and rules.embedding_twice and not mmap
            if twice or placement.output != HOST:
                yield tensor, placement.output


def tensor_device(tensor: TensorSpec, placement: Placement) -> str:
    """Where a tensor's one copy lies: with its block, on the host for the input, else beside the output."""
    block = block_of(tensor.name)
    if block is not None and block < len(placement.layers):
        return (placement.experts if is_expert(tensor.name) else placement.layers)[block]
    if tensor.name.startswith(_INPUT):
        return HOST
    return placement.layers[0] if tensor.name.startswith(_FIRST) else placement.output


def _bytes_on(tensor: TensorSpec, device: str, *, mmap: bool) -> int:
    if device == HOST:
        return tensor.bytes if mmap else _aligned(tensor.bytes, HOST_ALIGNMENT)
    kind = TYPES_BY_NAME.get(tensor.type)
    filling = kind.row_bytes(-tensor.shape[0] % GPU_ROW) if kind is not None and kind.quantized else 0
    return _aligned(tensor.bytes + filling, GPU_ALIGNMENT)


def _aligned(count: int, alignment: int) -> int:
    return -(-count // alignment) * alignment


def _by_group(spec: ModelSpec, placement: Placement) -> dict[str, int]:
    """Without a tensor table only the groups' sums are known."""
    total: dict[str, int] = defaultdict(int)
    total[HOST] += spec.embedding_bytes + spec.lookup_bytes
    total[placement.output] += spec.output_bytes + spec.other_bytes
    if spec.tied_output and placement.output != HOST:
        total[placement.output] += spec.embedding_bytes
    for layer, device, home in zip(spec.layers, placement.layers, placement.experts, strict=True):
        if not layer.nextn:
            total[device] += layer.dense_bytes
            total[home] += layer.expert_bytes
    return total

"""Build a `ModelSpec` from metadata in the shape of the GGUF keys and a tensor table, whoever supplied them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attrs import evolve

from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.gguf import GgufModel
from velollm_core.models.layers import build_layers
from velollm_core.models.metadata import Metadata
from velollm_core.models.quantization import quantization_label
from velollm_core.models.refusals import model_refusal
from velollm_core.models.rules import Architecture
from velollm_core.models.spec import Format, LayerSpec, ModelSpec, TensorSpec
from velollm_core.models.weight_groups import group_weights, with_weights
from velollm_core.models.wording import one_line


def build_spec(
    metadata: Metadata,
    tensors: Sequence[TensorSpec],
    name: str,
    *,
    kind: Format = "gguf",
    file_bytes: int | None = None,
    data_present: bool = True,
) -> ModelSpec:
    """Build the spec of the model called ``name`` where the file itself has no name for it.

    Raises:
        ModelFileError: a key is missing or wrong; the text names it.
    """
    rules = ARCHITECTURES.get(metadata.architecture)
    layers = build_layers(rules or Architecture(), metadata, _nextn(metadata, tensors))
    experts, used = metadata.integer("{a}.expert_count", 0), _experts_used(metadata)
    spec = ModelSpec(
        name=one_line(metadata.text("general.name") or name, 120),
        architecture=one_line(metadata.architecture, 60),
        source=metadata.source,
        format=kind,
        context_length=metadata.integer("{a}.context_length"),
        embedding_length=metadata.integer("{a}.embedding_length"),
        vocab_size=_vocab_size(metadata, tensors),
        layers=layers,
        expert_count=experts,
        expert_used=used,
        indexer_top_k=metadata.integer("{a}.attention.indexer.top_k", 0) if rules and rules.indexer else 0,
        parameters=_parameters(metadata, tensors),
        quantization=_quantization(metadata, tensors),
        tokenizer=metadata.text("tokenizer.ggml.model"),
        file_bytes=file_bytes,
        data_present=data_present,
        notes=_notes(metadata.architecture, rules, layers),
        refusal=model_refusal(rules, metadata, layers, experts, used),
    )
    return _with_tensors(spec, tensors)


def _with_tensors(spec: ModelSpec, tensors: Sequence[TensorSpec]) -> ModelSpec:
    groups = group_weights(tensors, len(spec.layers))
    names = {tensor.name for tensor in tensors}
    return evolve(
        spec,
        layers=with_weights(spec.layers, groups),
        embedding_bytes=groups.embedding,
        lookup_bytes=groups.lookup,
        output_bytes=groups.output,
        other_bytes=groups.other,
        tied_output="token_embd.weight" in names and "output.weight" not in names,
        tensors=tuple(tensors),
    )


def gguf_spec(model: GgufModel, name: str) -> ModelSpec:
    """The spec of a GGUF whose headers were read.

    Raises:
        ModelFileError: a key is missing or wrong; the text names it.
    """
    return build_spec(model.metadata, model.tensors, name, file_bytes=model.file_bytes, data_present=model.data_present)


def _nextn(metadata: Metadata, tensors: Sequence[TensorSpec]) -> int:
    """Next-token-prediction blocks at the end of the file; DeepSeek-V4 files may announce them and leave them out."""
    key, blocks = "{a}.nextn_predict_layers", metadata.block_count
    count = metadata.integer(key, 0)
    if count > blocks:
        raise metadata.error(key, f"at most the {blocks} blocks there are")
    if metadata.architecture == "deepseek4":
        probe = f"blk.{blocks - count}.nextn.eh_proj.weight"
        return count if any(tensor.name == probe for tensor in tensors) else 0
    return count


def _experts_used(metadata: Metadata) -> int:
    return max(metadata.per_layer("{a}.expert_used_count", metadata.block_count, 0))


def _vocab_size(metadata: Metadata, tensors: Sequence[TensorSpec]) -> int:
    """Tokens in the tokenizer, else as the key says, else rows of the embedding."""
    rows = next((tensor.shape[-1] for tensor in tensors if tensor.name == "token_embd.weight"), 0)
    return metadata.length("tokenizer.ggml.tokens") or metadata.integer("{a}.vocab_size", rows)


def _parameters(metadata: Metadata, tensors: Sequence[TensorSpec]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors) or metadata.integer("general.parameter_count", 0)


def _quantization(metadata: Metadata, tensors: Sequence[TensorSpec]) -> str:
    file_type = metadata.integer("general.file_type") if metadata.has("general.file_type") else None
    return quantization_label(file_type, tensors)


def _notes(architecture: str, rules: Architecture | None, layers: Sequence[LayerSpec]) -> tuple[str, ...]:
    notes = []
    if rules is None:
        name = one_line(architecture, 60)
        notes.append(f"architecture {name!r} is not in VeloLLM's table: generic rules, may miss special ones")
    nextn = sum(layer.nextn for layer in layers)
    if nextn:
        notes.append(f"{nextn} next-token-prediction layer(s), not loaded unless speculating")
    return tuple(notes)

"""A model's shape from a Hugging Face ``config.json``, turned into the GGUF keys that say the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import evolve

from velollm_core.errors import ModelFileError
from velollm_core.models.building import build_spec
from velollm_core.models.hf_architectures import MODEL_TYPES
from velollm_core.models.metadata import Metadata, Value
from velollm_core.models.spec import ModelSpec, TensorSpec

Config = Mapping[str, object]

# GGUF key below the architecture's name: the config's names for it, the first one found counts.
_KEYS: dict[str, tuple[str, ...]] = {
    "context_length": ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"),
    "embedding_length": ("hidden_size", "n_embd", "d_model"),
    "vocab_size": ("vocab_size",),
    "feed_forward_length": ("intermediate_size", "n_inner", "ffn_dim"),
    "attention.head_count": ("num_attention_heads", "n_head"),
    "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads", "num_attention_heads", "n_head"),
    "attention.key_length": ("head_dim", "attention_head_dim"),
    "attention.value_length": ("v_head_dim", "head_dim", "attention_head_dim"),
    "attention.sliding_window": ("sliding_window", "attention_chunk_size"),
    "attention.shared_kv_layers": ("num_kv_shared_layers",),
    "attention.kv_lora_rank": ("kv_lora_rank",),
    "attention.indexer.key_length": ("index_head_dim",),
    "attention.indexer.top_k": ("index_topk",),
    "expert_count": ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts"),
    "expert_used_count": ("num_experts_per_tok", "moe_topk", "moe_k"),
    "expert_feed_forward_length": ("moe_intermediate_size",),
    "leading_dense_block_count": ("first_k_dense_replace",),
    "nextn_predict_layers": ("num_nextn_predict_layers",),
    "full_attention_interval": ("full_attention_interval",),
    "ssm.conv_kernel": ("linear_conv_kernel_dim", "mamba_d_conv", "conv_kernel", "d_conv"),
    "ssm.state_size": ("linear_key_head_dim", "mamba_d_state", "ssm_state_size", "state_size", "d_state"),
    "ssm.group_count": ("linear_num_key_heads", "mamba_n_groups", "n_groups"),
    "ssm.inner_size": ("mamba_d_ssm", "d_inner"),
    "shortconv.l_cache": ("conv_L_cache",),
}
# How the tensors begin that turn pictures into tokens; some of their layers are named like those of the text half.
_EYES = ("vision_tower.", "vision_model.", "multi_modal_projector.")
_FULL, _STATE = {"full_attention", "attention"}, {"linear_attention", "mamba", "mamba2", "conv", "recurrent"}


def config_spec(config: Config, tensors: Sequence[TensorSpec], source: str) -> ModelSpec:
    """The spec of the model with this configuration and these tensors, named as safetensors name them.

    Of a model that reads pictures as well it is the text half: a token of text passes no other.

    Raises:
        ModelFileError: a key is missing or of the wrong kind; the text names its GGUF counterpart.
    """
    text = _text_config(config)
    seeing = text is not config
    mine = [tensor for tensor in tensors if not (seeing and tensor.name.removeprefix("model.").startswith(_EYES))]
    metadata = Metadata(source, gguf_values(text, source))
    spec = build_spec(metadata, [_renamed(tensor) for tensor in mine], Path(source).name, kind="safetensors")
    notes = [] if tensors else ["no tensor table: the weights' bytes are not known"]
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))) or spec.tied_output
    size = sum(tensor.bytes for tensor in tensors)
    if aside := size - sum(tensor.bytes for tensor in mine):
        what = f"{aside / 2**20:.0f} MiB of tensors that read pictures"
        notes.append(f"{what} are not counted: text is served without them")
    notes = [*spec.notes, *notes]
    return evolve(spec, tied_output=tied and not spec.output_bytes, file_bytes=size or None, notes=tuple(notes))


def gguf_values(config: Config, source: str) -> dict[str, Value]:
    """The GGUF keys that say what ``config`` says.

    Raises:
        ModelFileError: the configuration names no model type.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ModelFileError(f"{source}: the configuration names no model_type")
    architecture = MODEL_TYPES.get(model_type, model_type)
    found: dict[str, Value] = {"general.architecture": architecture}
    blocks = _count(config, "num_hidden_layers", "n_layer", "num_layers")
    if blocks is not None:
        found[f"{architecture}.block_count"] = blocks + (_count(config, "num_nextn_predict_layers") or 0)
    for key, names in _KEYS.items():
        value = _count(config, *names)
        if value is not None:
            found[f"{architecture}.{key}"] = value
    if config.get("use_sliding_window") is False:
        found[f"{architecture}.attention.sliding_window"] = 0
    found.update({f"{architecture}.{key}": value for key, value in _derived(config, blocks or 0).items()})
    found.setdefault(f"{architecture}.context_length", 0)
    return found


def _derived(config: Config, blocks: int) -> dict[str, Value]:
    """Keys that no single name of the configuration gives."""
    found: dict[str, Value] = {}
    rank, rope = _count(config, "kv_lora_rank"), _count(config, "qk_rope_head_dim")
    if rank is not None and rope is not None:
        nope = _count(config, "qk_nope_head_dim") or 0
        found |= {"attention.key_length": rank + rope, "attention.value_length": rank, "attention.head_count_kv": 1}
        found |= {"attention.key_length_mla": nope + rope}
        found |= {"attention.value_length_mla": _count(config, "v_head_dim") or nope}
    kinds = _layer_kinds(config, blocks)
    if kinds:
        found |= _by_layer(kinds, _count(config, "num_key_value_heads", "num_attention_heads") or 0)
    if "mlp" in kinds:
        inner = _count(config, "intermediate_size") or 0
        found["feed_forward_length"] = tuple(inner if kind == "mlp" else 0 for kind in kinds)
    value_heads, value_size = _count(config, "linear_num_value_heads"), _count(config, "linear_value_head_dim")
    if value_heads and value_size:
        found["ssm.inner_size"] = value_heads * value_size
    expand, width = _count(config, "mamba_expand", "expand"), _count(config, "hidden_size", "d_model")
    if expand and width and _count(config, "mamba_d_ssm", "d_inner") is None:
        found["ssm.inner_size"] = expand * width
    if (period := _count(config, "sliding_window_pattern")) and not kinds and blocks:
        found["attention.sliding_window_pattern"] = period
    return found


def _layer_kinds(config: Config, blocks: int) -> list[str]:
    """One word per layer, from a list of them, a pattern of letters, or a period; empty where there is none."""
    kinds = config.get("layer_types") or config.get("layers_block_type")
    if isinstance(kinds, list):
        return [str(kind) for kind in kinds]
    pattern = config.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        return [{"M": "mamba", "*": "attention"}.get(letter, "mlp") for letter in pattern]
    period, offset = _count(config, "attn_layer_period"), _count(config, "attn_layer_offset") or 0
    if period:
        return ["attention" if layer % period == offset else "mamba" for layer in range(blocks)]
    return []


def _by_layer(kinds: Sequence[str], kv_heads: int) -> dict[str, Value]:
    """What the list of layer kinds says: which keep a state, which see through a window."""
    if any(kind in _STATE for kind in kinds):
        return {
            "attention.recurrent_layers": tuple(int(kind in _STATE) for kind in kinds),
            "attention.head_count_kv": tuple(kv_heads if kind in _FULL else 0 for kind in kinds),
        }
    return {"attention.sliding_window_pattern": tuple(kind not in _FULL for kind in kinds)}


def _text_config(config: Config) -> Config:
    """The language model's part of a configuration that also describes images or sound."""
    for key in ("text_config", "llm_config", "language_config"):
        nested = config.get(key)
        if isinstance(nested, Mapping) and nested:
            return {"model_type": config.get("model_type"), **nested}
    return config


def _count(config: Config, *names: str) -> int | None:
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")


def _renamed(tensor: TensorSpec) -> TensorSpec:
    """Name a tensor so that it is counted with its kind: GGUF's names for what is looked up, headed, or an expert."""
    name = tensor.name
    layer = _LAYER.search(name)
    if layer is not None:
        routed = ".experts." in name or name.endswith((".gate_up_proj", ".experts"))
        kind = "ffn_gate_exps." if routed and ".shared_expert" not in name else ""
        return evolve(tensor, name=f"blk.{layer[1]}.{kind}{name[layer.end() :]}")
    if "embed_tokens." in name or name.endswith(("wte.weight", "embeddings.weight", "embedding.weight")):
        return evolve(tensor, name="token_embd.weight")
    return evolve(tensor, name="output.weight") if name.endswith("lm_head.weight") else tensor

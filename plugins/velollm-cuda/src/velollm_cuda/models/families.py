"""The families by their `architectures` entry: how each one's `config.json` becomes a `ModelConfig`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log
from typing import Literal, cast

from attrs import evolve

from velollm_core.errors import ModelFileError, ModelRefused
from velollm_cuda.models.config import ModelConfig, RopeConfig
from velollm_cuda.models.text_half import WRAPPERS, text_half

Json = Mapping[str, object]
SCALED_BY: Mapping[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor",),
}
"""The kinds of rope, and what each cannot do without."""
LAYER_KINDS = ("full_attention", "sliding_attention")
# What transformers takes where a file says nothing.
WINDOW = 4096
FULL_LAYERS = 28
GEMMA3_THETA, GEMMA3_LOCAL_THETA = 1e6, 1e4
MOST = 2**31
MOST_LAYERS = 1000


def read_config(document: Json, source: str) -> ModelConfig:
    """The `ModelConfig` of a parsed ``config.json``; ``source`` names it in errors.

    Raises:
        ModelRefused: the family, its quantization or its rope scaling is not one this engine runs.
        ModelFileError: a key is missing or of the wrong type.
    """
    try:
        return _read(text_half(document))
    except ModelRefused as refusal:
        raise ModelRefused(f"{source}: {refusal}") from refusal
    except KeyError as error:
        raise ModelFileError(f"{source}: key {error.args[0]!r} is missing") from error
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ModelFileError(f"{source}: {error}") from error


def _read(document: Json) -> ModelConfig:
    names = document.get("architectures")
    family = str(names[0]) if isinstance(names, list) and names else "none"
    if family not in FAMILIES:
        raise ModelRefused(f"architecture {family} is not one of {', '.join(sorted([*FAMILIES, *WRAPPERS]))}")
    if quantization := document.get("quantization_config") or document.get("compression_config"):
        method = quantization.get("quant_method", "unknown") if isinstance(quantization, dict) else quantization
        raise ModelRefused(f"quantized weights ({method}) are not supported; take the bf16 checkpoint")
    config = FAMILIES[family](document, _base(document, family))
    activation = document.get("hidden_activation") or document.get("hidden_act")
    wanted = {"gelu_pytorch_tanh"} if config.gelu else {"silu", "swish"}
    if activation is not None and activation not in wanted:
        raise ModelRefused(f"activation {activation!r} is not supported; {family} has {min(wanted)}")
    _check(config)
    return config


def _check(config: ModelConfig) -> None:
    counts = (config.layers, config.hidden, config.feed_forward, config.heads, config.kv_heads, config.head_size)
    if (
        not all(counts)
        or not config.vocabulary
        or not config.context
        or config.heads % config.kv_heads
        or config.head_size % 2
    ):
        raise ValueError(
            f"{config.layers} layers of {config.hidden} with {config.heads} heads of {config.head_size} over "
            f"{config.kv_heads} KV heads make no transformer"
        )
    if config.layers > MOST_LAYERS:
        raise ValueError(f"num_hidden_layers is {config.layers}; no model has so many")
    if config.context < 2:
        raise ValueError(f"max_position_embeddings is {config.context}; a prompt and its answer take two")
    if len(config.windows) != config.layers:
        raise ValueError(f"layer_types names {len(config.windows)} layers, num_hidden_layers is {config.layers}")


def _base(document: Json, family: str) -> ModelConfig:
    heads, hidden, layers = (_int(document, key) for key in ("num_attention_heads", "hidden_size", "num_hidden_layers"))
    head_size = _int(document, "head_dim", hidden // max(heads, 1))
    rope = _rope(document, "full_attention")
    return ModelConfig(
        family=family,
        layers=layers,
        hidden=hidden,
        feed_forward=_int(document, "intermediate_size"),
        heads=heads,
        kv_heads=_int(document, "num_key_value_heads", heads),
        head_size=head_size,
        vocabulary=_int(document, "vocab_size"),
        context=_context(document, rope),
        epsilon=_positive(document, "rms_norm_eps"),
        rope=rope,
        local_rope=rope,
        windows=(0,) * layers,
        scale=head_size**-0.5,
        tied=bool(document.get("tie_word_embeddings", False)),
        eos=_ids(document, "eos_token_id"),
        dtype=str(document.get("dtype") or document.get("torch_dtype") or "bfloat16"),
    )


def _context(document: Json, rope: RopeConfig) -> int:
    """Where YaRN is switched on by hand, ``max_position_embeddings`` still is what the model was trained for."""
    known = _int(document, "max_position_embeddings")
    return max(known, int(rope.original * rope.factor)) if rope.kind == "yarn" else known


def _llama(document: Json, base: ModelConfig) -> ModelConfig:
    bias = bool(document.get("attention_bias", False))
    if document.get("mlp_bias"):
        raise ModelRefused("mlp_bias: biases in the feed-forward layers are not supported")
    return evolve(base, query_bias=bias, output_bias=bias)


def _mistral(document: Json, base: ModelConfig) -> ModelConfig:
    return evolve(base, windows=(_window(document),) * base.layers)


def _qwen2(document: Json, base: ModelConfig) -> ModelConfig:
    return evolve(base, query_bias=True, windows=_qwen_windows(document, base.layers))


def _qwen3(document: Json, base: ModelConfig) -> ModelConfig:
    bias = bool(document.get("attention_bias", False))
    windows = _qwen_windows(document, base.layers)
    return evolve(base, qk_norm=True, query_bias=bias, output_bias=bias, windows=windows)


def _gemma(document: Json, base: ModelConfig) -> ModelConfig:
    if document.get("use_bidirectional_attention"):
        raise ModelRefused("use_bidirectional_attention: a model that reads backwards writes no text")
    bias = bool(document.get("attention_bias", False))
    return evolve(
        base,
        query_bias=bias,
        output_bias=bias,
        tied=bool(document.get("tie_word_embeddings", True)),
        gelu=True,
        unit_norm=True,
        post_norms=True,
        embedding_scale=base.hidden**0.5,
        scale=_float(document, "query_pre_attn_scalar") ** -0.5,
        attention_softcap=_float(document, "attn_logit_softcapping", 0.0),
        logit_softcap=_float(document, "final_logit_softcapping", 0.0),
    )


def _gemma2(document: Json, base: ModelConfig) -> ModelConfig:
    windows = _typed_windows(document) or tuple(_window(document) * (layer % 2 == 0) for layer in range(base.layers))
    return evolve(_gemma(document, base), windows=windows)


def _gemma3(document: Json, base: ModelConfig) -> ModelConfig:
    pattern = _int(document, "sliding_window_pattern", 6)
    windows = _typed_windows(document) or tuple(
        _window(document) * ((layer + 1) % pattern != 0) for layer in range(base.layers)
    )
    whole, local = _rope(document, "full_attention", GEMMA3_THETA), _local_rope(document)
    return evolve(_gemma(document, base), qk_norm=True, windows=windows, rope=whole, local_rope=local)


def _local_rope(document: Json) -> RopeConfig:
    """Of the layers with a window; older files scale only the others."""
    table = document.get("rope_parameters")
    if isinstance(table, dict) and "sliding_attention" in table and "rope_local_base_freq" not in document:
        return _rope(document, "sliding_attention", GEMMA3_LOCAL_THETA)
    return RopeConfig(theta=_float(document, "rope_local_base_freq", GEMMA3_LOCAL_THETA))


FAMILIES: dict[str, Callable[[Json, ModelConfig], ModelConfig]] = {
    "LlamaForCausalLM": _llama,
    "MistralForCausalLM": _mistral,
    "Qwen2ForCausalLM": _qwen2,
    "Qwen3ForCausalLM": _qwen3,
    "Gemma2ForCausalLM": _gemma2,
    "Gemma3ForCausalLM": _gemma3,
}


def _qwen_windows(document: Json, layers: int) -> tuple[int, ...]:
    if not document.get("use_sliding_window"):
        return (0,) * layers
    first = _int(document, "max_window_layers", FULL_LAYERS)
    return _typed_windows(document) or tuple(_window(document) * (layer >= first) for layer in range(layers))


def _typed_windows(document: Json) -> tuple[int, ...]:
    kinds = document.get("layer_types")
    if not isinstance(kinds, list):
        return ()
    if strange := [kind for kind in kinds if kind not in LAYER_KINDS]:
        raise ModelRefused(f"layers of type {strange[0]!r} are not supported")
    return tuple(_window(document) * (kind == "sliding_attention") for kind in kinds)


def _window(document: Json) -> int:
    """Null is no window; a file that does not say has the one that transformers takes."""
    return _int(document, "sliding_window", 0) if "sliding_window" in document else WINDOW


def _rope(document: Json, layer_type: str, theta: float = 10000.0) -> RopeConfig:
    table = document.get("rope_parameters") or document.get("rope_scaling") or {}
    if not isinstance(table, dict):
        raise TypeError(f"rope parameters are {table!r}, not an object")
    table = table.get(layer_type, table)
    if not isinstance(table, dict):
        raise TypeError(f"rope parameters of {layer_type} are {table!r}, not an object")
    kind = str(table.get("rope_type", table.get("type", "default")))
    if kind not in SCALED_BY:
        raise ModelRefused(f"rope scaling {kind!r} is not one of {', '.join(SCALED_BY)}")
    partial = _float(table, "partial_rotary_factor", _float(document, "partial_rotary_factor", 1.0))
    if partial != 1 or "mscale" in table:
        raise ModelRefused("rope over a part of the head, or with mscale, is not supported")
    for key in SCALED_BY[kind]:
        _positive(table, key)
    factor = _float(table, "factor", 1.0)
    return RopeConfig(
        theta=_positive(table if "rope_theta" in table else document, "rope_theta", theta),
        kind=cast("Literal['default', 'linear', 'llama3', 'yarn']", kind),
        factor=factor,
        low=_float(table, "low_freq_factor", 1.0),
        high=_float(table, "high_freq_factor", 4.0),
        original=_int(table, "original_max_position_embeddings", _int(document, "max_position_embeddings")),
        fast=_float(table, "beta_fast", 32.0),
        slow=_float(table, "beta_slow", 1.0),
        whole=bool(table.get("truncate", True)),
        magnitude=_float(table, "attention_factor", 0.1 * log(max(factor, 1.0)) + 1.0) if kind == "yarn" else 1.0,
    )


def _int(document: Json, key: str, default: int | None = None) -> int:
    value = document.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise KeyError(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < MOST:
        raise TypeError(f"{key} is {value!r:.40}, not a count")
    return value


def _ids(document: Json, key: str) -> tuple[int, ...]:
    value = document.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    if any(isinstance(each, bool) or not isinstance(each, int) for each in ids):
        raise TypeError(f"{key} is {value!r}, not token ids")
    return tuple(ids)


def _float(document: Json, key: str, default: float | None = None) -> float:
    value = document.get(key)
    if value is None:
        if default is None:
            raise KeyError(key)
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{key} is {value!r}, not a number")
    return float(value)


def _positive(document: Json, key: str, default: float | None = None) -> float:
    value = _float(document, key, default)
    if not 0 < value < float("inf"):
        raise ValueError(f"{key} is {value}; it must be above 0")
    return value

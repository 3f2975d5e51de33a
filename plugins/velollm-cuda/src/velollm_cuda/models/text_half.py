"""The text half of a model that reads pictures as well: its `config.json` holds a whole configuration for each half."""

from __future__ import annotations

from collections.abc import Mapping

Json = Mapping[str, object]

# What Gemma 3's files leave out, since it is as its configuration class in transformers has it.
GEMMA3: Json = {
    "vocab_size": 262208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "query_pre_attn_scalar": 256,
}
WRAPPERS: Mapping[str, tuple[str, Json]] = {"Gemma3ForConditionalGeneration": ("Gemma3ForCausalLM", GEMMA3)}
OUTER = ("eos_token_id", "dtype", "torch_dtype", "quantization_config", "tie_word_embeddings")


def text_half(document: Json) -> Json:
    """The configuration of the text model in ``document``; ``document`` itself where it is that of a text model.

    Raises:
        KeyError: the wrapper has no ``text_config``.
        TypeError: its ``text_config`` is no object.
    """
    names = document.get("architectures")
    wrapper = WRAPPERS.get(str(names[0])) if isinstance(names, list) and names else None
    if wrapper is None:
        return document
    family, defaults = wrapper
    inner = document["text_config"]
    if not isinstance(inner, dict):
        raise TypeError(f"text_config is {inner!r:.80}, not an object")
    outer = {key: document[key] for key in OUTER if document.get(key) is not None}
    given = {key: value for key, value in inner.items() if value is not None}
    return {**defaults, **outer, **given, "architectures": [family]}

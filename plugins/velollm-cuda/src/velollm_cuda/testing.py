"""Small models for tests and benchmarks: a folder like one from the hub, its weights out of a seed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
TINY: Mapping[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 320,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "dtype": "float32",
}


def write_tiny_model(folder: Path, *, seed: int = 0, **changes: object) -> Path:
    """Write a llama of 2 layers with a tokenizer of bytes, which knows nothing but runs like any other.

    ``changes`` are keys of its ``config.json``.
    """
    config = {**TINY, **changes}
    write_configuration(folder, config)
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.ones(shape) if len(shape) == 1 else torch.randn(shape, generator=generator) * 0.3
        for name, shape in _shapes(config).items()
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_configuration(folder: Path, config: Mapping[str, object]) -> None:
    """Everything but the weights: enough to serve ``config`` with ``load_format="dummy"``.

    The tokenizer has a token for each byte, then as many words as the vocabulary has room for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "config.json", config)
    _write(folder / "generation_config.json", {"bos_token_id": 256, "eos_token_id": config["eos_token_id"]})
    _tokenizer(int(str(config["vocab_size"]))).save(str(folder / "tokenizer.json"))
    _write(
        folder / "tokenizer_config.json",
        {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TEMPLATE},
    )


def _write(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")


def _tokenizer(size: int) -> Tokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [f"Ġw{number}" for number in range(size - len(letters) - len(SPECIAL))]
    vocabulary = {token: index for index, token in enumerate([*letters, *SPECIAL, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", len(letters))])
    return tokenizer


def _shapes(config: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    def number(key: str) -> int:
        return int(str(config[key]))

    hidden, wide, size = number("hidden_size"), number("intermediate_size"), number("head_dim")
    heads, kv_heads = number("num_attention_heads") * size, number("num_key_value_heads") * size
    layer = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (heads, hidden),
        "self_attn.k_proj": (kv_heads, hidden),
        "self_attn.v_proj": (kv_heads, hidden),
        "self_attn.o_proj": (hidden, heads),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (number("vocab_size"), hidden), "norm": (hidden,)}
    for index in range(number("num_hidden_layers")):
        shapes |= {f"layers.{index}.{name}": shape for name, shape in layer.items()}
    named = {f"model.{name}.weight": shape for name, shape in shapes.items()}
    if not config["tie_word_embeddings"]:
        named["lm_head.weight"] = (number("vocab_size"), hidden)
    return named

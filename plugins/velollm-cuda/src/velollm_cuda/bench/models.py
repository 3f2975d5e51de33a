"""Folders of the measured models: configuration and tokenizer, weights drawn when they are loaded."""

from __future__ import annotations

from pathlib import Path

from velollm_cuda.bench.workloads import MODELS
from velollm_cuda.testing import write_configuration

CONTEXT = 8192
# The longest request of any list, prompt and answer.
LONGEST = 2304
SEQUENCES = 256


def write_model(folder: Path, model: str) -> Path:
    """Write ``model``'s configuration into ``folder``, for ``load_format="dummy"``."""
    shape = MODELS[model]
    write_configuration(
        folder,
        {
            "architectures": ["Qwen3ForCausalLM" if shape.qk_norm else "LlamaForCausalLM"],
            "model_type": "qwen3" if shape.qk_norm else "llama",
            "hidden_size": shape.hidden,
            "intermediate_size": shape.feed_forward,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "head_dim": shape.head_size,
            "vocab_size": shape.vocabulary,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "tie_word_embeddings": shape.tied,
            "bos_token_id": 256,
            "eos_token_id": 257,
            "dtype": "bfloat16",
        },
    )
    return folder


def engine_options() -> dict[str, object]:
    """How every part loads its model: room for the whole list, nothing kept from one round to the next."""
    return {
        "load_format": "dummy",
        "max_num_seqs": SEQUENCES,
        "max_model_len": LONGEST,
        "enable_prefix_caching": False,
        "seed": 0,
    }

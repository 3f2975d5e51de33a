"""Every family against transformers: small random models, loaded from disk, run on the CPU in fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from velollm_cuda.engine import build_engine
from velollm_cuda.models.reading import read_model_config
from velollm_cuda.options import EngineOptions
from velollm_cuda.weights import load_parameters

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.sequence import Sequence
from velollm_core.models.files import read_model

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 24}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-mha": ("Llama", {"num_key_value_heads": 4, "head_dim": 32}),
    "llama-one-kv-head": ("Llama", {"num_key_value_heads": 1}),
    "llama-llama3-rope": ("Llama", {"rope_parameters": LLAMA3}),
    "llama-linear-rope": ("Llama", {"rope_parameters": LINEAR}),
    "llama-steep-yarn": ("Llama", {"rope_parameters": YARN | {"rope_theta": 10.0}}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-bias": ("Llama", {"attention_bias": True}),
    "llama-seven-to-one": ("Llama", {"num_attention_heads": 7, "num_key_value_heads": 1, "hidden_size": 70}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-window": ("Mistral", {"sliding_window": 24}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("Qwen2", {"rope_parameters": YARN}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "gemma2": ("Gemma2", GEMMA),
    "gemma2-softcap": ("Gemma2", GEMMA | {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}),
    "gemma3": ("Gemma3", GEMMA | {"layer_types": MIXED}),
    "gemma3-bias": ("Gemma3", GEMMA | {"layer_types": MIXED, "attention_bias": True}),
    "gemma3-untied": ("Gemma3", GEMMA | {"layer_types": MIXED[::-1], "tie_word_embeddings": False}),
}


def make(name: str) -> Any:
    """A random model of transformers whose every parameter matters, norms and biases too."""
    family, changes = CASES[name]
    kind = getattr(transformers, f"{family}TextConfig" if family == "Gemma3" else f"{family}Config")
    config = kind(**(SHAPE | changes), attn_implementation="eager")
    torch.manual_seed(len(name))
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.fixture(scope="module", params=list(CASES))
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model of transformers, and the folder it was saved to."""
    model = make(request.param)
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return model, folder


def test_logits_equal_those_of_transformers(saved: tuple[Any, Path], oracle: Any) -> None:
    model, folder = saved
    config = read_model_config(folder)
    parameters = load_parameters(folder, config, torch.float32, torch.device("cpu"))
    token_ids = torch.randint(0, 300, (100,), generator=torch.Generator().manual_seed(5)).tolist()
    with torch.inference_mode():
        wanted = model(torch.tensor([token_ids])).logits[0]
    found = oracle(config, parameters).logits(token_ids)
    assert wanted.std() > 0.1, "logits that say nothing prove nothing"
    assert (found - wanted).abs().max() <= 1e-4


def test_the_text_half_of_a_model_that_sees(tmp_path: Path, oracle: Any) -> None:
    """In the words of either time, and whatever the halves are called in the checkpoint."""
    text = {key: value for key, value in (SHAPE | GEMMA).items() if not key.endswith("token_id")}
    ropes = {
        "full_attention": LINEAR | {"rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    seen = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(2)
    model: Any = transformers.Gemma3ForConditionalGeneration(
        transformers.Gemma3Config(
            text_config=text | {"rope_parameters": ropes, "num_hidden_layers": 7},  # type: ignore[arg-type]
            vision_config=seen, image_token_index=299,  # type: ignore[arg-type]
        )
    ).eval()  # fmt: skip
    model.save_pretrained(tmp_path)
    token_ids = torch.randint(0, 290, (60,), generator=torch.Generator().manual_seed(5)).tolist()
    with torch.inference_mode():
        wanted = model(torch.tensor([token_ids])).logits[0]
    path = tmp_path / "config.json"
    document = json.loads(path.read_text())
    older = {
        key: value for key, value in document["text_config"].items() if key not in ("layer_types", "rope_parameters")
    }
    for half in (document["text_config"], older | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}):
        path.write_text(json.dumps(document | {"text_config": half}))
        config = read_model_config(tmp_path)
        parameters = load_parameters(tmp_path, config, torch.float32, torch.device("cpu"))
        assert (oracle(config, parameters).logits(token_ids) - wanted).abs().max() <= 1e-4
    spec = read_model(tmp_path)
    assert (spec.tensor_bytes, spec.parameters) == (parameters.bytes, parameters.bytes // 4), "as it is planned"
    assert spec.file_bytes is not None
    assert spec.file_bytes > spec.tensor_bytes


def test_greedy_answers_equal_those_of_transformers(saved: tuple[Any, Path]) -> None:
    """Three prompts at once, in chunks, for 64 steps: past every window."""
    model, folder = saved
    engine = build_engine(folder, EngineOptions(max_num_seqs=3, kv_cache_bytes=4 << 20, max_num_batched_tokens=40))
    random = torch.Generator().manual_seed(6)
    prompts = [torch.randint(0, 300, (count,), generator=random).tolist() for count in (3, 30, 77)]
    sequences = [Sequence(str(i), list(prompt), SamplingParams(max_tokens=64)) for i, prompt in enumerate(prompts)]
    for sequence in sequences:
        engine.loop.scheduler.add(sequence)
    for _ in engine.loop.run():
        pass
    for sequence, prompt in zip(sequences, prompts, strict=True):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            wanted = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        assert sequence.output_token_ids == wanted[0, len(prompt) :].tolist()
    assert engine.blocks.usage().used == 0

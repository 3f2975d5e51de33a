"""What `config.json` says, in the words of each family and of each time; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from velollm_cuda.models.config import ModelConfig, RopeConfig
from velollm_cuda.models.families import read_config
from velollm_cuda.models.reading import read_model_config
from velollm_cuda.models.rope import rope_tables
from velollm_cuda.weights import empty_parameters

from velollm_core.engine.layout import KVGroup
from velollm_core.errors import ModelFileError, ModelRefused, VeloError

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
    "tie_word_embeddings": True,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}  # fmt: skip


def like(family: str, **changes: Any) -> dict[str, Any]:
    """A document of another family; None takes a key away."""
    document = LLAMA | {"architectures": [f"{family}ForCausalLM"], "rope_scaling": None} | changes
    return {key: value for key, value in document.items() if value is not None}


QWEN3 = like(
    "Qwen3", hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16, head_dim=128,
    vocab_size=151936, max_position_embeddings=40960, eos_token_id=151645,
)  # fmt: skip
MISTRAL = like(
    "Mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, head_dim=None, vocab_size=32768,
    tie_word_embeddings=False,
)  # fmt: skip
QWEN2 = like(
    "Qwen2", hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28, head_dim=None,
    num_key_value_heads=4, vocab_size=152064, tie_word_embeddings=False, sliding_window=131072, max_window_layers=28,
    use_sliding_window=False,
)  # fmt: skip
GEMMA = {"head_dim": 256, "query_pre_attn_scalar": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": None}
GEMMA2 = like(
    "Gemma2", **GEMMA, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
    num_key_value_heads=4, vocab_size=256000, sliding_window=4096, attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
)  # fmt: skip
GEMMA3 = like(
    "Gemma3", **GEMMA, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4,
    num_key_value_heads=1, vocab_size=262144, sliding_window=512, sliding_window_pattern=6, rope_theta=1000000,
    rope_local_base_freq=10000,
)  # fmt: skip


@pytest.mark.parametrize(
    ("document", "published"),
    [
        (LLAMA, 1_235_814_400),
        (QWEN3, 596_049_920),
        (MISTRAL, 7_248_023_552),
        (QWEN2, 7_615_616_512),
        (GEMMA2, 2_614_341_888),
        (GEMMA3, 999_885_952),
    ],
    ids=["llama-3.2-1b", "qwen3-0.6b", "mistral-7b-0.3", "qwen2.5-7b", "gemma-2-2b", "gemma-3-1b"],
)
def test_published_models_have_their_published_number_of_parameters(document: dict[str, Any], published: int) -> None:
    config = read_config(document, "config.json")
    parameters = empty_parameters(config, torch.bfloat16, torch.device("meta"))
    assert sum(tensor.numel() for tensor in parameters.tensors) == published
    assert config.parameters == sum(tensor.numel() for tensor in parameters.tensors if tensor.dim() == 2)


def test_windows_by_layer() -> None:
    assert read_config(GEMMA2, "").windows[:4] == (4096, 0, 4096, 0)
    assert read_config(GEMMA3, "").windows == (512, 512, 512, 512, 512, 0) * 4 + (512, 512)
    assert set(read_config(QWEN2, "").windows) == {0}
    windowed = QWEN2 | {"use_sliding_window": True, "max_window_layers": 27}
    assert read_config(windowed, "").windows == (0,) * 27 + (131072,)
    assert set(read_config(MISTRAL | {"sliding_window": 4096}, "").windows) == {4096}
    typed = GEMMA3 | {"layer_types": ["full_attention"] * 25 + ["sliding_attention"]}
    assert read_config(typed, "").windows == (0,) * 25 + (512,)


def test_what_a_file_leaves_out_is_as_transformers_has_it() -> None:
    assert set(read_config(MISTRAL, "").windows) == {4096}
    assert set(read_config({**MISTRAL, "sliding_window": None}, "").windows) == {0}
    bare = {key: value for key, value in GEMMA3.items() if key not in ("rope_theta", "rope_local_base_freq")}
    scaled = read_config({**bare, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, "")
    assert (scaled.rope, scaled.local_rope) == (RopeConfig(1e6, "linear", 8.0, original=131072), RopeConfig(1e4))
    windowed = {key: value for key, value in QWEN2.items() if key != "max_window_layers"} | {"use_sliding_window": True}
    assert read_config(windowed | {"num_hidden_layers": 30}, "").windows == (0,) * 28 + (131072,) * 2


def test_the_text_half_of_a_model_that_sees() -> None:
    """Gemma 3 4B as its authors wrote it: what is usual is left out."""
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    document = {
        "architectures": ["Gemma3ForConditionalGeneration"], "eos_token_id": [1, 106], "text_config": text,
        "torch_dtype": "bfloat16", "vision_config": {"hidden_size": 1152},
    }  # fmt: skip
    config = read_config(document, "")
    assert config.family == "Gemma3ForCausalLM"
    assert (config.heads, config.kv_heads, config.head_size, config.eos) == (8, 4, 256, (1, 106))
    assert (config.rope.factor, config.rope.theta, config.local_rope.theta) == (8.0, 1e6, 1e4)
    assert config.windows == ((1024,) * 5 + (0,)) * 5 + (1024,) * 4
    parameters = empty_parameters(config, torch.bfloat16, torch.device("meta"))
    assert sum(tensor.numel() for tensor in parameters.tensors) == 3_880_263_168
    with pytest.raises(ModelRefused, match="gptq"):
        read_config(document | {"quantization_config": {"quant_method": "gptq"}}, "")


def test_the_cache_has_a_group_for_each_window() -> None:
    layout = read_config(GEMMA3, "").layout(16, 2)
    row = 2 * 256 * 2
    assert layout.groups == (KVGroup(4, 4 * row, None), KVGroup(22, 22 * row, 512))
    assert read_config(GEMMA3, "").group_of_layer[:7] == (1, 1, 1, 1, 1, 0, 1)


def test_rope_in_old_and_new_words() -> None:
    old = read_config(LLAMA, "").rope
    wanted = RopeConfig(theta=500000.0, kind="llama3", factor=32.0, low=1.0, high=4.0, original=8192)
    new = LLAMA | {"rope_parameters": LLAMA["rope_scaling"] | {"rope_theta": 500000.0}, "rope_scaling": None}
    assert old == read_config(new | {"rope_theta": 1.0}, "").rope == wanted
    gemma = read_config(GEMMA3, "")
    assert (gemma.rope.theta, gemma.local_rope.theta) == (1e6, 1e4)
    by_type = {"full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8.0}, "sliding_attention": {}}
    gemma = read_config({**GEMMA3, "rope_parameters": by_type, "rope_theta": 7.0}, "")
    assert (gemma.rope.kind, gemma.rope.theta, gemma.local_rope.kind) == ("linear", 1e6, "default")
    older = read_config(MISTRAL | {"rope_scaling": {"type": "linear", "factor": 2.0}}, "").rope
    assert (older.kind, older.factor) == ("linear", 2.0)


def test_yarn_lengthens_the_context() -> None:
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = read_config(QWEN2 | {"max_position_embeddings": 32768, "rope_scaling": yarn}, "")
    assert config.context == 131072
    assert config.rope.magnitude == pytest.approx(1.1386, abs=1e-4)


def test_rope_tables_beyond_scaling() -> None:
    """What transformers does not compare: angles far out stay exact, since they are made in double precision."""
    rope = RopeConfig(theta=10000.0)
    cosine, sine = rope_tables(rope, 64, 131072, torch.device("cpu"))
    assert torch.allclose(cosine.square() + sine.square(), torch.ones_like(cosine))
    assert float(cosine[131071, 0]) == pytest.approx(float(torch.tensor(131071.0, dtype=torch.float64).cos()), abs=1e-6)
    halved, _ = rope_tables(evolve(rope, kind="linear", factor=2.0), 64, 200, torch.device("cpu"))
    assert torch.allclose(halved[::2], cosine[:100])


def test_several_ends_and_none() -> None:
    assert read_config(LLAMA, "").eos == (128001, 128008, 128009)
    assert read_config(QWEN3, "").eos == (151645,)
    assert read_config(like("Llama", eos_token_id=None), "").eos == ()


REFUSED = {
    "unknown family": ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not one of Gemma2ForCausalLM"),
    "no family": ({"architectures": []}, "architecture none"),
    "quantized": ({"quantization_config": {"quant_method": "gptq"}}, r"quantized weights \(gptq\).*bf16 checkpoint"),
    "quantized oddly": ({"quantization_config": "int8"}, r"quantized weights \(int8\)"),
    "longrope": ({"rope_scaling": {"type": "longrope"}}, "rope scaling 'longrope' is not one of default, linear"),
    "dynamic": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope scaling 'dynamic'"),
    "partial rope": ({"partial_rotary_factor": 0.5}, "a part of the head"),
    "compressed": ({"compression_config": {"quant_method": "compressed-tensors"}}, r"weights \(compressed-tensors\)"),
    "chunked layers": (
        {**GEMMA3, "layer_types": ["chunked_attention"] * 26},
        "layers of type 'chunked_attention' are not supported",
    ),
    "both ways": ({**GEMMA3, "use_bidirectional_attention": True}, "use_bidirectional_attention: "),
    "mlp bias": ({"mlp_bias": True}, "mlp_bias"),
    "activation": ({"hidden_act": "relu"}, "activation 'relu' is not supported; LlamaForCausalLM has silu"),
}
BROKEN = {
    "no size": ({"hidden_size": None}, "key 'hidden_size' is missing"),
    "text for a number": ({"num_hidden_layers": "16"}, "num_hidden_layers is '16', not a count"),
    "negative": ({"vocab_size": -1}, "vocab_size is -1"),
    "true for a number": ({"num_attention_heads": True}, "num_attention_heads is True"),
    "epsilon": ({"rms_norm_eps": []}, r"rms_norm_eps is \[\], not a number"),
    "no heads": ({"num_attention_heads": 0, "head_dim": None}, "with 0 heads"),
    "no KV heads": ({"num_key_value_heads": 0}, "over 0 KV heads"),
    "uneven heads": ({"num_key_value_heads": 5}, "32 heads of 64 over 5 KV heads"),
    "odd head": ({"head_dim": 63}, "32 heads of 63"),
    "layer types": (
        {"layer_types": ["full_attention"], **{k: v for k, v in GEMMA3.items() if k != "layer_types"}},
        "names 1 layers, num_hidden_layers is 26",
    ),
    "rope is a list": ({"rope_scaling": [1]}, "rope parameters are"),
    "a scaling without factor": ({"rope_scaling": {"type": "linear"}}, "key 'factor' is missing"),
    "half a llama3": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "key 'low_freq_factor' is missing"),
    "a factor of nothing": ({"rope_scaling": {"type": "yarn", "factor": 0}}, r"factor is 0\.0; it must be above 0"),
    "no base": ({"rope_theta": float("nan")}, "rope_theta is nan; it must be above 0"),
    "below zero": ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06; it must be above 0"),
    "beyond any machine": ({"vocab_size": 10**30}, "vocab_size is 1000.*, not a count"),
    "more layers than any": ({"num_hidden_layers": 10**7}, "num_hidden_layers is 10000000; no model has so many"),
    "no room": ({"max_position_embeddings": 1}, "a prompt and its answer take two"),
    "one half": ({"architectures": ["Gemma3ForConditionalGeneration"]}, "key 'text_config' is missing"),
    "no half": ({"architectures": ["Gemma3ForConditionalGeneration"], "text_config": 4}, "text_config is 4, not an"),
    "eos is text": ({"eos_token_id": "</s>"}, "eos_token_id is '</s>', not token ids"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_would_run_wrong_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelRefused, match=f"^here: .*{message}") as refusal:
        read_config(LLAMA | changes, "here")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_read_names_the_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelFileError, match=f"^here: .*{message}") as refusal:
        read_config(LLAMA | changes, "here")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "not found; give a folder"),
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ("\xff", "cannot be read"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFileError, match=message):
        read_model_config(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["rope_type", "factor"]), inner),
    max_leaves=4,
)
KEYS = [*LLAMA, "rope_parameters", "layer_types", "sliding_window", "query_pre_attn_scalar", "quantization_config"]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([LLAMA, QWEN3, MISTRAL, QWEN2, GEMMA2, GEMMA3]),
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3),
)
def test_any_document_gives_a_shape_or_one_line(document: dict[str, Any], changes: dict[str, object]) -> None:
    text = json.dumps(document | changes)
    try:
        config = read_config(json.loads(text), "config.json")
    except VeloError as error:
        lines = str(error).splitlines()
        assert len(lines) == 1, text
    else:
        assert isinstance(config, ModelConfig)
        assert len(config.windows) == config.layers
        assert config.heads % config.kv_heads == 0

"""Hugging Face directories: configurations of every kind, tensor tables sound and unsound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import ModelFileError
from velollm_core.models.files import read_model
from velollm_core.models.gguf_cursor import HeaderIncomplete
from velollm_core.models.hf_architectures import MODEL_TYPES
from velollm_core.models.hf_config import config_spec
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.safetensors import parse_table, read_table
from velollm_core.models.spec import TensorSpec

BASE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 4096,
    "vocab_size": 100,
}


def spec_of(**keys: Any) -> Any:
    return config_spec(BASE | keys, (), "test")


def tensors_of(*names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, "bf16", (8,), 16) for name in names)


def test_a_plain_model() -> None:
    spec = spec_of()
    assert (spec.architecture, spec.format, spec.context_length, spec.vocab_size) == ("llama", "safetensors", 4096, 100)
    assert [(layer.k_row, layer.v_row, layer.feed_forward) for layer in spec.layers] == [(32, 32, 128)] * 4
    assert any("no tensor table" in note for note in spec.notes)


def test_the_head_size_is_not_always_the_width_over_the_heads() -> None:
    assert spec_of(model_type="qwen3", head_dim=128).layers[0].k_row == 256


@pytest.mark.parametrize("nest", ["text_config", "llm_config", "language_config"])
def test_the_language_model_of_a_larger_one(nest: str) -> None:
    config = {"model_type": "some_vl", nest: BASE | {"model_type": "qwen3"}}
    assert config_spec(config, (), "test").architecture == "qwen3"


def test_layer_types_say_windows_and_states() -> None:
    windowed = spec_of(
        model_type="gemma3_text",
        sliding_window=512,
        layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    )
    assert [layer.window for layer in windowed.layers] == [512, 0, 512, 0]
    linear = spec_of(
        model_type="qwen3_next",
        layer_types=["linear_attention"] * 3 + ["full_attention"],
        linear_conv_kernel_dim=4,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=16,
        linear_value_head_dim=16,
    )
    assert [layer.recurrent for layer in linear.layers] == [True, True, True, False]
    assert linear.layers[0].state_s == 16 * 64


def test_patterns_and_periods() -> None:
    mamba = {"ssm_state_size": 16, "conv_kernel": 4, "n_groups": 2, "mamba_expand": 2}
    nemotron = spec_of(model_type="nemotron_h", hybrid_override_pattern="M-*-", **mamba)
    assert [layer.recurrent for layer in nemotron.layers] == [True, False, False, False]
    assert [layer.caches for layer in nemotron.layers] == [False, False, True, False]
    keys = {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 16, "mamba_d_conv": 4, "mamba_expand": 2}
    jamba = spec_of(model_type="jamba", **keys)
    assert [layer.recurrent for layer in jamba.layers] == [True, False, True, False]
    assert jamba.layers[0].state_s == 16 * 128


def test_latent_attention_ignores_the_vestigial_heads() -> None:
    spec = spec_of(
        model_type="deepseek_v3", kv_lora_rank=48, qk_rope_head_dim=16, qk_nope_head_dim=32, v_head_dim=32,
        num_nextn_predict_layers=1, n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32,
    )  # fmt: skip
    assert [(layer.k_row, layer.v_row) for layer in spec.main_layers] == [(64, 0)] * 4
    assert spec.layers[-1].nextn
    assert (spec.expert_count, spec.expert_used) == (8, 2)


def test_a_window_that_is_switched_off() -> None:
    spec = spec_of(model_type="olmo3", sliding_window=512, use_sliding_window=False)
    assert {layer.window for layer in spec.layers} == {0}


def test_weights_by_kind() -> None:
    tensors = tensors_of(
        "model.embed_tokens.weight",
        "model.layers.0.self_attn.q_proj.weight",
        "model.layers.1.mlp.experts.7.gate_proj.weight",
        "model.layers.1.mlp.shared_expert.gate_proj.weight",
        "model.layers.2.mlp.experts.gate_up_proj",
        "model.norm.weight",
        "lm_head.weight",
    )
    spec = config_spec(BASE, tensors, "test")
    assert (spec.embedding_bytes, spec.output_bytes, spec.other_bytes) == (16, 16, 16)
    assert [(layer.dense_bytes, layer.expert_bytes) for layer in spec.layers] == [(16, 0), (16, 16), (0, 16), (0, 0)]
    assert not spec.tied_output
    assert spec.tensor_bytes == spec.file_bytes == 7 * 16
    assert config_spec(BASE, tensors[:3], "test").tied_output


@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_reads_pictures_is_no_part_of_the_text_half(prefix: str) -> None:
    """Its layers have numbers too, its positions are an embedding: all of it was counted with what a token reads."""
    text = ("language_model.model.embed_tokens.weight", "language_model.model.layers.0.mlp.up_proj.weight")
    eyes = tensors_of(
        f"{prefix}vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
        f"{prefix}vision_tower.vision_model.embeddings.position_embedding.weight",
        f"{prefix}multi_modal_projector.mm_input_projection_weight",
    )
    config = {"model_type": "gemma3", "text_config": BASE | {"model_type": "gemma3_text"}}
    alone, whole = (config_spec(config, tensors, "test") for tensors in (tensors_of(*text), tensors_of(*text) + eyes))
    assert [layer.dense_bytes for layer in whole.layers] == [16, 0, 0, 0]
    assert (whole.embedding_bytes, whole.tensor_bytes, whole.parameters) == (16, 32, 16)
    assert (whole.layers, whole.tensors, whole.tied_output) == (alone.layers, alone.tensors, True)
    assert whole.file_bytes == 5 * 16, "all of it is downloaded"
    assert [note for note in whole.notes if "read pictures" in note]
    assert not [note for note in alone.notes if "read pictures" in note]


def test_a_text_model_may_call_its_tensors_as_it_likes() -> None:
    spec = config_spec(BASE, tensors_of("vision_tower.layers.0.weight"), "test")
    assert spec.tensor_bytes == 16


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "names no model_type"),
        ({"model_type": 3}, "names no model_type"),
        ({"model_type": "llama"}, r"llama\.block_count is missing"),
        (BASE | {"num_hidden_layers": 10**9}, "not 1 to 512"),
        (BASE | {"num_hidden_layers": -1}, "not a count"),
        (BASE | {"model_type": "gpt_oss"}, r"gpt-oss\.attention\.sliding_window is missing"),
    ],
)
def test_configurations_that_say_too_little(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        config_spec(config, (), "test")


def test_every_known_model_type_is_a_known_architecture() -> None:
    from velollm_core.models.architectures import ARCHITECTURES

    assert set(MODEL_TYPES.values()) <= set(ARCHITECTURES)


def table(entries: dict[str, Any], data: int) -> bytes:
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def entry(kind: str = "F16", shape: Any = (2, 4), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_table() -> None:
    data = table({"__metadata__": {"format": "pt"}, "a": entry(), "b": entry("F8_E4M3", (16,), (16, 32))}, 32)
    found = parse_table("test", data, len(data))
    assert [(tensor.name, tensor.type, tensor.shape, tensor.bytes) for tensor in found] == [
        ("a", "f16", (2, 4), 16),
        ("b", "f8_e4m3", (16,), 16),
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no safetensors"),
        ((2**63).to_bytes(8, "little") + bytes(64), "not a sound"),
        ((4).to_bytes(8, "little") + b"[1, ", "no JSON"),
        ((2).to_bytes(8, "little") + b"[]", "not an object"),
        (table({"a": 3}, 0), "tensor 'a' cannot be understood"),
        (table({"a": entry("Q4")}, 16), "cannot be understood"),
        (table({"a": entry(shape=(-1, 4))}, 16), "cannot be understood"),
        (table({"a": entry(offsets=(0,))}, 16), "cannot be understood"),
        (table({"a": entry()}, 15), "truncated"),
        (table({"a": entry(offsets=(16, 0))}, 16), "truncated or unsound"),
        (table({"a": entry(shape=(2, 5))}, 16), "does not take 16 bytes"),
    ],
)
def test_unsound_tables(data: bytes, says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        parse_table("test", data, len(data))


def test_the_beginning_of_a_table_is_incomplete() -> None:
    data = table({"a": entry()}, 16)
    for cut in range(len(data) - 16):
        with pytest.raises(HeaderIncomplete):
            parse_table("test", data[:cut], len(data))


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    said = ""
    try:
        parse_table("test", data, len(data))
    except ModelFileError as error:
        said = str(error)
    assert "\n" not in said


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BASE))
    assert read_model(tmp_path).file_bytes is None
    one = table({"model.layers.0.x.weight": entry()}, 16)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(one)
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(table({"lm_head.weight": entry()}, 16))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"not the model")
    spec = read_model(tmp_path)
    assert (spec.layers[0].dense_bytes, spec.output_bytes) == (16, 16)
    assert memory(spec, LoadSettings(4096)).devices[0].weights.value == 32
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match=r"config\.json is no JSON"):
        read_model(tmp_path)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_table(tmp_path / "absent.safetensors")

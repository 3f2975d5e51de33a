"""Memory by formula: the golden vectors, GPUs, what is not loaded, and what llama.cpp refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve

from velollm_core.errors import ModelRefused
from velollm_core.models.hf_config import config_spec
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.spec import LayerSpec, ModelSpec

Specs = Callable[[str], ModelSpec]
MIB = 1 << 20
GIB = 1 << 30

CONFIGS: dict[str, dict[str, Any]] = {
    "Llama-3.1-8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "Gemma-3-27B": {
        "model_type": "gemma3",
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 5376,
            "num_hidden_layers": 62,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "sliding_window": 1024,
            "sliding_window_pattern": 6,
        },
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "gpt-oss-120b": {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "sliding_window": 128,
    },
    "DeepSeek-V3": {
        "model_type": "deepseek_v3",
        "hidden_size": 7168,
        "num_hidden_layers": 61,
        "num_attention_heads": 128,
        "num_key_value_heads": 128,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "num_nextn_predict_layers": 1,
    },
    "Llama-4-Scout": {
        "model_type": "llama4",
        "text_config": {
            "model_type": "llama4_text",
            "hidden_size": 5120,
            "num_hidden_layers": 48,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "attention_chunk_size": 8192,
        },
    },
    "Qwen3-Next-80B-A3B": {
        "model_type": "qwen3_next",
        "hidden_size": 2048,
        "num_hidden_layers": 48,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    },
}


def host(spec: ModelSpec, context: int, **settings: Any) -> Any:
    return memory(spec, LoadSettings(total_context=context, **settings)).devices[0]


# Published shapes, one sequence, micro-batch 512: MiB as f16, q8_0, q4_0, and as if every layer saw everything.
VECTORS = [
    ("Llama-3.1-8B", 8192, 1024.0, 544.0, 288.0, 1024.0),
    ("Llama-3.1-8B", 131072, 16384.0, 8704.0, 4608.0, 16384.0),
    ("Gemma-3-27B", 32768, 3184.0, 1691.5, 895.5, 15872.0),
    ("gpt-oss-20b", 8192, 210.0, 111.6, 59.1, 384.0),
    ("gpt-oss-20b", 131072, 3090.0, 1641.6, 869.1, 6144.0),
    ("gpt-oss-120b", 131072, 4635.0, 2462.3, 1303.6, 9216.0),
    ("DeepSeek-V3", 32768, 2196.0, 1166.6, 617.6, 2196.0),
    ("Llama-4-Scout", 131072, 7368.0, 3914.2, 2072.2, 24576.0),
    ("Qwen3-Next-80B-A3B", 32768, 768.0, 408.0, 216.0, None),
]


@pytest.mark.parametrize(("name", "context", "f16", "q8", "q4", "full"), VECTORS)
def test_published_models(name: str, context: int, f16: float, q8: float, q4: float, full: float | None) -> None:
    spec = config_spec(CONFIGS[name], (), name)
    for kind, expected in (("f16", f16), ("q8_0", q8), ("q4_0", q4)):
        kv = host(spec, context, kv_unified=True, type_k=kind, type_v=kind).kv.value
        assert round(kv / MIB, 1) == pytest.approx(expected, abs=0.051)
    if full is not None:
        assert host(spec, context, kv_unified=True, swa_full=True).kv.value == full * MIB


def test_slots_share_a_window_or_pad_one_each() -> None:
    spec = config_spec(CONFIGS["Gemma-3-27B"], (), "gemma")
    assert host(spec, 32768, parallel=4, kv_unified=True).kv.value == 4432 * MIB
    assert host(spec, 32768, parallel=4, kv_unified=False).kv.value == 5056 * MIB
    assert host(spec, 32768, parallel=None).kv.value == 4432 * MIB


def test_the_state_of_qwen3_next() -> None:
    spec = config_spec(CONFIGS["Qwen3-Next-80B-A3B"], (), "qwen")
    one = host(spec, 4096).recurrent.value
    assert round(one / MIB, 1) == 75.4
    assert host(spec, 131072, parallel=3).recurrent.value == 3 * one


def test_a_total_context_of_zero_is_the_trained_one(golden_spec: Specs) -> None:
    found = memory(golden_spec("llama.gguf"), LoadSettings(total_context=0))
    assert found.context == golden_spec("llama.gguf").context_length


def test_everything_adds_up_over_devices(golden_spec: Specs) -> None:
    spec = golden_spec("llama-3.1-8b-q4km.gguf")
    alone = memory(spec, LoadSettings(total_context=8192, mmap=False))
    for layers in (1, 7, 33):
        split = memory(spec, LoadSettings(total_context=8192, gpu_layers=layers), (3.0, 1.0))
        assert sum(device.kv.value for device in split.devices) == alone.devices[0].kv.value
        weights = sum(device.weights.value for device in split.devices)
        assert abs(weights - spec.tensor_bytes) < 2 * MIB
        assert all(device.overhead.value > 0 for device in split.devices[1:])
    assert [device.device for device in split.devices] == ["host", "gpu0", "gpu1"]
    assert split.devices[0].weights.value == spec.embedding_bytes


def test_a_gpus_compute_is_less_certain(golden_spec: Specs) -> None:
    spec = golden_spec("llama-3.1-8b-q4km.gguf")
    on_host = memory(spec, LoadSettings(total_context=8192)).devices[0].compute
    split = memory(spec, LoadSettings(total_context=8192, gpu_layers=99))
    gpu = split.devices[1].compute
    assert gpu.low < on_host.low
    assert gpu.high > on_host.high
    assert split.devices[0].compute.value < on_host.value


def test_the_output_layer_goes_first_and_takes_a_tied_embedding_along(golden_spec: Specs) -> None:
    tied = golden_spec("gemma-3-27b-q4km.gguf")
    assert tied.tied_output
    found = memory(tied, LoadSettings(total_context=4096, gpu_layers=1))
    assert found.devices[1].weights.value >= tied.embedding_bytes
    assert found.devices[0].weights.value == tied.tensor_bytes - tied.other_bytes
    assert found.devices[1].kv.value == 0


def test_experts_may_stay_on_the_host(golden_spec: Specs) -> None:
    spec = golden_spec("gpt-oss-20b-mxfp4.gguf")
    load = LoadSettings(total_context=4096, gpu_layers=99)
    everything, some = memory(spec, load), memory(spec, evolve(load, cpu_moe_layers=3))
    moved = some.devices[0].weights.value - everything.devices[0].weights.value
    assert moved == sum(layer.expert_bytes for layer in spec.layers[:3])
    assert some.devices[1].kv == everything.devices[1].kv


def test_layers_that_predict_further_tokens_are_not_loaded(golden_spec: Specs) -> None:
    spec = golden_spec("glm4moe-nextn.gguf")
    last = spec.layers[-1]
    assert last.nextn
    assert not last.caches
    assert host(spec, 512).weights.value == spec.tensor_bytes - last.bytes
    assert any("not loaded unless speculating" in note for note in memory(spec, LoadSettings(512)).notes)


def test_notes_say_what_is_not_known(golden_spec: Specs) -> None:
    spec = golden_spec("llama.gguf")
    assert any("was trained for" in note for note in memory(spec, LoadSettings(1 << 20)).notes)
    bare = memory(evolve(spec, tensors=()), LoadSettings(4096))
    assert any("no tensor table" in note for note in bare.notes)
    assert bare.devices[0].weights.value == spec.tensor_bytes


def test_without_a_tensor_table_groups_are_placed() -> None:
    layers = tuple(LayerSpec(index, kv_heads=2, dense_bytes=100, expert_bytes=50) for index in range(4))
    spec = ModelSpec(
        "m", "llama", "m", "ollama", 4096, 64, 10, layers, embedding_bytes=7, tied_output=True, other_bytes=3
    )
    found = memory(spec, LoadSettings(512, gpu_layers=3, cpu_moe_layers=3))
    assert found.devices[1].weights.value == 2 * 100 + 50 + 3 + 7
    assert found.devices[0].weights.value == 7 + 2 * 150 + 50


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"type_k": "q8_0"}, "caches K and V as one"),
        ({"type_k": "q8_0", "type_v": "q8_0", "flash_attn": "off"}, "needs flash attention"),
        ({"type_k": "f8", "type_v": "f8"}, "no cache type"),
        ({"parallel": 0}, "0 sequences at a time"),
        ({"parallel": 257}, "1 to 256"),
        ({"batch": 0, "ubatch": 0}, "a batch of no tokens"),
    ],
)
def test_refusals(golden_spec: Specs, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelRefused, match=says) as caught:
        host(golden_spec("deepseek2-v3.gguf"), 2048, **settings)
    assert str(caught.value).startswith("tiny: llama.cpp would refuse this: ")


def test_a_refused_model_is_refused_with_any_settings(golden_spec: Specs) -> None:
    with pytest.raises(ModelRefused, match="because"):
        host(evolve(golden_spec("llama.gguf"), refusal="because"), 512)


def test_kv_grows_with_context_and_shrinks_with_its_type(golden_spec: Specs) -> None:
    for name in ("llama-3.1-8b-q4km.gguf", "gemma-3-27b-q4km.gguf", "gpt-oss-20b-mxfp4.gguf", "deepseek-v3-q4km.gguf"):
        spec = golden_spec(name)
        sizes = [host(spec, context).kv.value for context in (512, 4096, 32768, 131072)]
        assert sizes == sorted(sizes)
        kinds = [host(spec, 8192, type_k=kind, type_v=kind).kv.value for kind in ("f32", "f16", "q8_0", "q5_1", "q4_0")]
        assert kinds == sorted(kinds, reverse=True)

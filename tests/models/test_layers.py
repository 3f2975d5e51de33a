"""The rules that hang on an architecture's name, from keys alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from velollm_core.errors import ModelFileError, VeloError
from velollm_core.models.architectures import ARCHITECTURES
from velollm_core.models.building import build_spec
from velollm_core.models.load import LoadSettings
from velollm_core.models.memory import memory
from velollm_core.models.metadata import Metadata
from velollm_core.models.spec import ModelSpec

BASE = {
    "context_length": 8192,
    "embedding_length": 256,
    "block_count": 8,
    "feed_forward_length": 512,
    "attention.head_count": 8,
    "attention.head_count_kv": 2,
    "attention.sliding_window": 128,
    "vocab_size": 100,
}
SSM = {"ssm.conv_kernel": 4, "ssm.inner_size": 512, "ssm.state_size": 16, "ssm.group_count": 2}


def spec_of(architecture: str, keys: Mapping[str, Any] | None = None, drop: tuple[str, ...] = ()) -> ModelSpec:
    found = {key: value for key, value in {**BASE, **(keys or {})}.items() if key not in drop}
    values = {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in found.items()}
    return build_spec(Metadata("test", values), (), "test")


def windows(spec: ModelSpec) -> str:
    return "".join({"window": "w", "chunk": "c", "full": "f", "none": "-"}[layer.attention] for layer in spec.layers)


@pytest.mark.parametrize(
    ("architecture", "pattern"),
    [
        ("llama", "ffffffff"),
        ("phi3", "ffffffff"),
        ("gemma2", "wfwfwfwf"),
        ("gemma3", "wwwwwfww"),
        ("gemma3n", "wwwwfwww"),
        ("gpt-oss", "wfwfwfwf"),
        ("cohere2", "wwwfwwwf"),
        ("cohere2moe", "fwwwfwww"),
        ("exaone-moe", "wwwfwwwf"),
        ("exaone4", "ffffffff"),
        ("olmo2", "wwwfwwwf"),
        ("afmoe", "wwwfwwwf"),
        ("mellum", "wwwfwwwf"),
        ("muse-glimmer", "wwwfwwwf"),
        ("laguna", "fwwwfwww"),
        ("smallthinker", "fwwwfwww"),
        ("plamo3", "wwwwwwwf"),
        ("llama4", "cccfcccf"),
    ],
)
def test_window_patterns(architecture: str, pattern: str) -> None:
    assert windows(spec_of(architecture)) == pattern


@pytest.mark.parametrize("architecture", ["gemma4", "mimo2", "step35", "granite_swa", "spark2_5", "maple"])
def test_some_architectures_say_their_windows_themselves(architecture: str) -> None:
    flags = {"attention.sliding_window_pattern": (True, False, False, True, True, True, False, True)}
    assert windows(spec_of(architecture, flags)) == "wffwwwfw"
    for keys in ({}, {"attention.sliding_window_pattern": 2}):
        with pytest.raises(ModelFileError, match=f"{architecture}.attention.sliding_window_pattern"):
            spec_of(architecture, keys)


def test_a_key_overrides_the_pattern() -> None:
    assert windows(spec_of("gemma3", {"attention.sliding_window_pattern": 3})) == "wwfwwfww"
    assert windows(spec_of("laguna", {"attention.sliding_window_pattern": 2})) == "fwfwfwfw"
    assert windows(spec_of("gemma2", {"attention.sliding_window_pattern": (1, 1, 0)})) == "wwffffff"
    assert windows(spec_of("gemma2", {"attention.sliding_window_pattern": 0})) == "wwwwwwww"


def test_a_window_that_nothing_uses_aborts_llama_cpp() -> None:
    assert "no layer uses it" in str(spec_of("gemma2", {"attention.sliding_window_pattern": 1}).refusal)
    assert spec_of("llama", {"attention.sliding_window_pattern": 1}).refusal is None


@pytest.mark.parametrize(
    ("architecture", "window"), [("smallthinker", 4096), ("llama4", 8192), ("gemma2", 128), ("gpt-oss", 128)]
)
def test_window_widths(architecture: str, window: int) -> None:
    assert {layer.window for layer in spec_of(architecture).layers} == {0, window}


def test_windows_without_their_key() -> None:
    missing = ("attention.sliding_window",)
    assert {layer.window for layer in spec_of("gemma2", drop=missing).layers} == {0, 4096}
    assert {layer.window for layer in spec_of("llama4", drop=missing).layers} == {0, 8192}
    for architecture in ("gemma3", "olmo2", "plamo3", "smallthinker", "laguna"):
        assert windows(spec_of(architecture, drop=missing)) == "ffffffff"
    for architecture in ("cohere2", "gpt-oss", "gemma3n", "exaone-moe"):
        with pytest.raises(ModelFileError, match=f"{architecture}.attention.sliding_window is missing"):
            spec_of(architecture, drop=missing)
    for architecture in ("llama4", "gemma3", "smallthinker"):
        assert windows(spec_of(architecture, {"attention.sliding_window": 0})) == "ffffffff"


def test_exaone4_has_windows_only_with_64_blocks() -> None:
    assert windows(spec_of("exaone4", {"block_count": 64})) == "wwwf" * 16


def test_shared_kv() -> None:
    assert sum(layer.caches for layer in spec_of("gemma3n", {"block_count": 30}).layers) == 20
    gemma4 = {
        "block_count": 10,
        "attention.sliding_window_pattern": (True, True, True, True, False) * 2,
        "attention.key_length_swa": 16,
        "attention.value_length_swa": 16,
        "attention.shared_kv_layers": 5,
    }
    spec = spec_of("gemma4", gemma4)
    assert [layer.caches for layer in spec.layers] == [True] * 5 + [False] * 5
    assert (spec.layers[0].key_length, spec.layers[4].key_length) == (16, 32)
    assert spec.refusal is None
    assert "of another kind" in str(spec_of("gemma4", gemma4 | {"attention.shared_kv_layers": 4}).refusal)


def test_latent_attention() -> None:
    latent = {"attention.head_count_kv": 1, "attention.key_length": 96, "attention.value_length": 64}
    expanded = {"attention.key_length_mla": 48, "attention.value_length_mla": 32}
    for architecture in ("deepseek2", "deepseek32", "glm-dsa", "mistral4"):
        layer = spec_of(architecture, latent | expanded | {"attention.indexer.key_length": 16}).layers[0]
        assert (layer.k_row, layer.v_row) == (96, 0)
    assert spec_of("deepseek2", latent).layers[0].v_row == 64
    assert spec_of("llama", latent | expanded).layers[0].v_row == 64


def test_indexers() -> None:
    indexer = {"attention.indexer.key_length": 16, "attention.value_length": 24}
    types = {"attention.indexer.types": (1, 0, 1, 0, 0, 0, 0, 1)}

    def keys(architecture: str, more: Mapping[str, Any]) -> list[int]:
        return [layer.indexer_k for layer in spec_of(architecture, indexer | more).layers]

    assert keys("deepseek32", types) == [16] * 8
    assert keys("glm-dsa", types) == [16, 0, 16, 0, 0, 0, 0, 16]
    assert keys("glm-dsa", {}) == [16] * 8
    assert keys("glm-dsa", {"context_length": 1 << 20}) == [16, 16, 16, 0, 0, 0, 16, 0]
    assert keys("minimax-m3", {"leading_dense_block_count": 3}) == [0] * 3 + [16] * 5
    assert {layer.indexer_v for layer in spec_of("minimax-m3", indexer).layers} == {24}
    assert keys("hy_v4", {}) == [0] * 8
    assert keys("llama", {}) == [0] * 8


def recurrent(spec: ModelSpec) -> str:
    return "".join("r" if layer.recurrent else "a" for layer in spec.layers)


@pytest.mark.parametrize("architecture", ["jamba", "plamo2", "granitehybrid"])
def test_layers_without_kv_heads_keep_a_state(architecture: str) -> None:
    spec = spec_of(architecture, SSM | {"attention.head_count_kv": (0, 0, 2, 0, 0, 2, 0, 0)})
    assert recurrent(spec) == "rrarrarr"
    assert [layer.caches for layer in spec.layers] == [layer == "a" for layer in "rrarrarr"]


@pytest.mark.parametrize(
    ("architecture", "keys", "state"),
    [
        ("mamba", {}, (3 * 512, 16 * 512)),
        ("mamba2", {}, (3 * (512 + 2 * 2 * 16), 16 * 512)),
        ("falcon-h1", {}, (3 * (512 + 64), 16 * 512)),
        ("rwkv7", {"wkv.head_size": 64}, (2 * 256, 256 * 64)),
        ("arwkv7", {"wkv.head_size": 64, "token_shift_count": 1}, (256, 256 * 64)),
        ("minimax-01", {}, (0, 32 * 32 * 8)),
        ("lfm2", {"shortconv.l_cache": 3, "attention.head_count_kv": (0,) * 8}, (2 * 256, 0)),
        ("kimi-linear", {"kda.head_dim": 64, "attention.head_count_kv": (0,) * 8}, (3 * 3 * 8 * 64, 64 * 64 * 8)),
    ],
)
def test_states(architecture: str, keys: Mapping[str, Any], state: tuple[int, int]) -> None:
    layer = spec_of(architecture, SSM | dict(keys)).layers[0]
    assert (layer.state_r, layer.state_s) == state
    assert layer.caches == (architecture == "falcon-h1")


def test_intervals() -> None:
    assert recurrent(spec_of("qwen3next", SSM)) == "rrrarrra"
    assert recurrent(spec_of("qwen35", SSM | {"full_attention_interval": 2})) == "rararara"
    assert recurrent(spec_of("qwen35moe", SSM | {"attention.recurrent_layers": (1, 1, 0, 0, 1, 0, 1, 0)})) == "rraarara"
    assert recurrent(spec_of("minimax-01", {})) == "rrrrrrra"
    with pytest.raises(ModelFileError, match="full_attention_interval"):
        spec_of("qwen3next", SSM | {"full_attention_interval": 0})


def test_nemotron_h_has_layers_of_three_kinds() -> None:
    kv, widths = (0, 0, 2, 0, 0, 2, 0, 0), (0, 512, 0, 0, 512, 0, 512, 0)
    keys = SSM | {"attention.head_count_kv": kv, "feed_forward_length": widths}
    spec = spec_of("nemotron_h", keys)
    assert recurrent(spec) == "raaraaar"
    assert [layer.caches for layer in spec.layers] == [False, False, True, False, False, True, False, False]


def test_next_token_layers() -> None:
    spec = spec_of("glm4moe", {"nextn_predict_layers": 2})
    assert [layer.nextn for layer in spec.layers] == [False] * 6 + [True] * 2
    assert [layer.caches for layer in spec.layers] == [True] * 6 + [False] * 2
    assert [
        layer.caches
        for layer in spec_of("minimax-m3", {"nextn_predict_layers": 1, "attention.indexer.key_length": 8}).layers
    ][-1]
    assert "only next-token-prediction" in str(spec_of("glm4moe", {"nextn_predict_layers": 8}).refusal)
    with pytest.raises(ModelFileError, match="nextn_predict_layers is 9, not at most the 8"):
        spec_of("glm4moe", {"nextn_predict_layers": 9})


def test_layers_that_are_not_blocks() -> None:
    switch = spec_of("graniteswitch")
    assert len(switch.layers) == 9
    assert switch.layers[-1].kv_heads == 1
    assert len(spec_of("nanbeige", {"num_loops": 3}).layers) == 24
    with pytest.raises(ModelFileError, match="num_loops is 65, not 1 to 64"):
        spec_of("nanbeige", {"num_loops": 65})


def test_deepseek_v4() -> None:
    keys = {"attention.compress_ratios": (0, 0, 4, 128, 4, 128, 4, 0), "attention.indexer.key_length": 16}
    spec = spec_of("deepseek4", keys | {"attention.head_count_kv": 1})
    assert [layer.compression for layer in spec.layers] == [0, 0, 4, 128, 4, 128, 4, 0]
    assert [layer.indexer_k for layer in spec.layers] == [0, 0, 16, 0, 16, 0, 16, 0]
    assert all(layer.per_slot and layer.k_only for layer in spec.layers)
    with pytest.raises(ModelFileError, match="compress_ratios"):
        spec_of("deepseek4", {"attention.compress_ratios": (0,), "attention.indexer.key_length": 16})


def test_drafts_and_encoders() -> None:
    flags = {"attention.sliding_window_pattern": (True, False) * 4}
    assert "beside its target" in str(spec_of("gemma4-assistant", flags).refusal)
    for architecture in ("bert", "llada", "gemma-embedding"):
        assert memory(spec_of(architecture), LoadSettings(512)).devices[0].kv.value == 0


def test_experts() -> None:
    assert spec_of("qwen3moe", {"expert_count": 8, "expert_used_count": (2, 4) * 4}).expert_used == 4
    assert "2 of 0 experts" in str(spec_of("qwen3moe", {"expert_used_count": 2}).refusal)
    assert "0 of 8 experts" in str(spec_of("qwen3moe", {"expert_count": 8}).refusal)


def test_an_unknown_architecture_gets_the_general_rules_and_a_note() -> None:
    spec = spec_of("llama9")
    assert windows(spec) == "ffffffff"
    assert "'llama9' is not in VeloLLM's table" in spec.notes[0]
    known = memory(spec_of("llama"), LoadSettings(4096)).devices[0]
    unknown = memory(spec, LoadSettings(4096)).devices[0]
    assert unknown.kv == known.kv
    assert unknown.compute.high > known.compute.high


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"block_count": 0}, "llama.block_count is 0, not 1 to 512"),
        ({"block_count": 4_000_000_000}, "not 1 to 512"),
        ({"block_count": -1}, "not a count"),
        ({"block_count": "8"}, "not a count"),
        ({"attention.head_count": (8, 8)}, "not an array of 8"),
        ({"attention.head_count_kv": 2.5}, "llama.attention.head_count_kv is 2.5, not a count"),
        ({"embedding_length": 2**40}, "not a count"),
    ],
)
def test_wrong_values_name_their_key(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ModelFileError, match=says):
        spec_of("llama", keys)


@pytest.mark.parametrize("key", ["block_count", "context_length", "embedding_length"])
def test_missing_keys_are_named(key: str) -> None:
    with pytest.raises(ModelFileError, match=f"the key llama.{key} is missing"):
        spec_of("llama", drop=(key,))


def test_no_architecture() -> None:
    with pytest.raises(ModelFileError, match=r"general\.architecture is None"):
        build_spec(Metadata("test", {}), (), "test")


COUNT = st.integers(0, 2**32 - 1) | st.integers(0, 8)
KEYS = sorted(
    {*BASE, *SSM, "attention.key_length", "nextn_predict_layers", "attention.shared_kv_layers", "expert_count"}
)


@settings(max_examples=200, deadline=None)
@given(
    architecture=st.sampled_from(sorted(ARCHITECTURES)),
    keys=st.dictionaries(
        st.sampled_from(KEYS),
        COUNT | st.lists(COUNT, min_size=8, max_size=8).map(tuple) | st.text(max_size=3) | st.booleans(),
        max_size=5,
    ),
    load=st.builds(
        LoadSettings,
        total_context=st.integers(0, 1 << 20),
        parallel=st.none() | st.integers(0, 9),
        kv_unified=st.none() | st.booleans(),
        type_k=st.sampled_from(["f16", "q8_0", "q4_1"]),
        type_v=st.sampled_from(["f16", "q8_0", "f32"]),
        flash_attn=st.sampled_from(["auto", "on", "off"]),
        ubatch=st.integers(0, 4096),
        swa_full=st.booleans(),
        gpu_layers=st.integers(0, 12),
    ),
)
def test_any_header_is_planned_or_refused_in_one_line(
    architecture: str, keys: dict[str, Any], load: LoadSettings
) -> None:
    said = ""
    try:
        found = memory(spec_of(architecture, SSM | keys), load)
        assert all(part.low <= part.value <= part.high for each in found.devices for part in each.components.values())
        assert found.context >= found.context_per_sequence
    except VeloError as error:
        said = str(error)
    assert said.isprintable()

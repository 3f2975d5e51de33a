"""How many bytes a block takes, and how many conversations a memory holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.engine.defaults import default_block_manager
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.errors import VeloError
from velollm_core.models.spec import LayerSpec, ModelSpec

PRESETS = {
    "Llama-3.1-8B": (KVCacheLayout.uniform(32, 8, 128), 131_072),
    "Llama-3.2-3B": (KVCacheLayout.uniform(28, 8, 128), 114_688),
    "Llama-3.2-1B": (KVCacheLayout.uniform(16, 8, 64), 32_768),
    "Qwen3-0.6B": (KVCacheLayout.uniform(28, 8, 128), 114_688),
}


def spec(*layers: LayerSpec, context: int = 4096) -> ModelSpec:
    return ModelSpec("m", "llama", "m.gguf", "gguf", context, 64, 100, layers)


@pytest.mark.parametrize("name", PRESETS)
def test_bytes_of_known_models(name: str) -> None:
    layout, bytes_per_token = PRESETS[name]
    assert layout.bytes_per_token == bytes_per_token
    assert layout.bytes_per_block == (16 * bytes_per_token,)
    assert layout.bytes_for(8192) == 8192 * bytes_per_token
    assert layout.num_blocks(16 * bytes_per_token * 1000 + 1) == (1000,)


def test_eight_thousand_tokens_of_an_8b_model_take_a_gibibyte() -> None:
    layout, _ = PRESETS["Llama-3.1-8B"]
    assert layout.bytes_for(8192) == 2**30
    assert default_block_manager(layout, 20 * 2**30).usage().total == 20 * 512 - 1


def test_layers_with_the_same_view_share_a_group() -> None:
    full = LayerSpec(0, heads=8, kv_heads=4, key_length=16, value_length=16)
    window = LayerSpec(1, "window", heads=8, kv_heads=2, key_length=16, value_length=16, window=128)
    chunk = LayerSpec(2, "chunk", heads=8, kv_heads=2, key_length=16, value_length=16, window=512)
    borrowed = LayerSpec(3, heads=8, kv_heads=4, key_length=16, value_length=16, caches=False)
    recurrent = LayerSpec(4, "none", state_s=100)
    layout = KVCacheLayout.from_spec(spec(full, window, window, chunk, borrowed, recurrent))
    assert layout.groups == (KVGroup(1, 256), KVGroup(2, 256, 128), KVGroup(1, 128, 512))
    assert layout.typical_tokens == 4096
    assert layout.groups[1].live_tokens(4000) == 128
    assert layout.groups[0].live_tokens(4000) == 4000


def test_latent_attention_counts_its_single_row() -> None:
    layer = LayerSpec(0, heads=128, kv_heads=1, key_length=576, value_length=0)
    assert KVCacheLayout.from_spec(spec(layer)).bytes_per_token == 1152


def test_windows_hold_what_they_look_at_and_two_blocks_more() -> None:
    layout = KVCacheLayout((KVGroup(1, 4), KVGroup(5, 20, 1024)), 16)
    assert layout.blocks_for(100_000) == (6250, 66)
    assert layout.blocks_for(64) == (4, 4)


def test_groups_hold_equally_many_typical_sequences() -> None:
    layout = KVCacheLayout((KVGroup(4, 400), KVGroup(20, 2000, 512)), 16, typical_tokens=4096)
    full, windowed = layout.num_blocks(2**30)
    assert full * 400 * 16 + windowed * 2000 * 16 <= 2**30
    assert full / 256 == pytest.approx(windowed / 34, rel=0.01)


@given(memory=st.integers(0, 2**36), windows=st.lists(st.none() | st.integers(1, 5000), min_size=1, max_size=4))
def test_blocks_never_exceed_the_memory(memory: int, windows: list[int | None]) -> None:
    layout = KVCacheLayout(tuple(KVGroup(index + 1, 100 * index + 7, w) for index, w in enumerate(windows)))
    counts = layout.num_blocks(memory)
    assert sum(count * size for count, size in zip(counts, layout.bytes_per_block, strict=True)) <= memory


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: KVCacheLayout(()), "a layer that caches"),
        (lambda: KVCacheLayout((KVGroup(1, 4),), block_size=0), "blocks of at least one token"),
        (lambda: default_block_manager(KVCacheLayout.uniform(32, 8, 128), 2**20), "too small"),
        (lambda: SchedulerLimits(max_num_seqs=0), "room for one sequence"),
        (lambda: SchedulerLimits(max_num_seqs=9, max_num_batched_tokens=8), "raise the one or lower the other"),
        (lambda: SchedulerLimits(watermark=1.0), "watermark"),
        (lambda: SchedulerLimits(swap_tokens=-1), "negative"),
    ],
)
def test_nonsense_is_refused_in_one_line(build: object, message: str) -> None:
    with pytest.raises(VeloError, match=message) as caught:
        build()  # type: ignore[operator]
    assert "\n" not in str(caught.value)

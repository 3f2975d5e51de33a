"""Kernels that begin while the one before still runs leave the same bits as kernels that wait their turn."""

from __future__ import annotations

from pathlib import Path

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

SHAPE = {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072,
    "num_hidden_layers": 8, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64, "vocab_size": 8000,
    "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "tie_word_embeddings": True, "bos_token_id": 0,
    "eos_token_id": 1, "dtype": "bfloat16",
}  # fmt: skip


def answers(folder: Path, *, eager: bool) -> list[list[int]]:
    """Prompts of all lengths, joined in chunks while others decode, down to one that is alone at the end."""
    from velollm_cuda import LLM, SamplingParams

    prompts = [[(7 * index + at) % 8000 for at in range(1 + 160 * index)] for index in range(12)]
    params = [SamplingParams(max_tokens=20 + 10 * index, ignore_eos=True) for index in range(12)]
    with LLM(
        folder, load_format="dummy", max_num_seqs=12, max_num_batched_tokens=700, enforce_eager=eager, seed=3,
        enable_prefix_caching=False, kv_cache_bytes=1 << 28,
    ) as llm:  # fmt: skip
        return [list(each.token_ids) for each in llm.generate(prompts, params)]


@pytest.mark.parametrize("eager", [False, True], ids=["graphs", "eager"])
def test_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eager: bool) -> None:
    from velollm_cuda.kernels import decode, gate, gemv, norm, prefill, rope_store, sample, slots
    from velollm_cuda.testing import write_configuration

    write_configuration(tmp_path, SHAPE)
    overlapped = [answers(tmp_path, eager=eager) for _ in range(3)]
    for module in (decode, gate, gemv, norm, prefill, rope_store, sample, slots):
        monkeypatch.setattr(module, "overlapping", lambda device: {"OVERLAP": False})
    in_turn = answers(tmp_path, eager=eager)
    assert all(each == in_turn for each in overlapped)
    assert len({tuple(each) for each in in_turn}) > 1

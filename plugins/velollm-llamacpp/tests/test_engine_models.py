"""Models that llama.cpp loads and this engine cannot run, and files that it cannot load: one clear line each."""

from __future__ import annotations

import contextlib
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from velollm_llamacpp.engine.engine import open_engine

from velollm_core.errors import ModelRefused
from velollm_core.testing.test_vocabulary import make_vocabulary

WIDTH, VOCABULARY = 32, 300
Tensors = dict[str, NDArray[np.float32]]


def write_recurrent(path: Path) -> Path:
    """One layer of a mamba."""
    inner, state, kernel, rank = 64, 16, 4, 4
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    words = make_vocabulary(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_token_merges(words.merges)
    tensors = _drawn({
        "output_norm.weight": (WIDTH,), "blk.0.attn_norm.weight": (WIDTH,), "blk.0.ssm_in.weight": (2 * inner, WIDTH),
        "blk.0.ssm_conv1d.weight": (inner, kernel), "blk.0.ssm_conv1d.bias": (inner,),
        "blk.0.ssm_x.weight": (rank + 2 * state, inner), "blk.0.ssm_dt.weight": (inner, rank),
        "blk.0.ssm_dt.bias": (inner,), "blk.0.ssm_a": (inner, state), "blk.0.ssm_d": (inner,),
        "blk.0.ssm_out.weight": (WIDTH, inner),
    })  # fmt: skip
    return _write(path, writer, tensors)


def write_embedder(path: Path) -> Path:
    """One layer of a BERT."""
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581w{each}" for each in range(VOCABULARY - 4))])
    writer.add_token_types([3] * 4 + [1] * (VOCABULARY - 4))
    for token, add in enumerate((writer.add_pad_token_id, writer.add_unk_token_id, writer.add_bos_token_id)):
        add(token)
    writer.add_sep_token_id(3)
    squares = ("attn_q", "attn_k", "attn_v", "attn_output")
    shapes: dict[str, tuple[int, ...]] = {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in squares}
    shapes |= {f"blk.0.{name}.bias": (WIDTH,) for name in (*squares, "ffn_down")}
    shapes |= {"blk.0.ffn_up.weight": (2 * WIDTH, WIDTH), "blk.0.ffn_down.weight": (WIDTH, 2 * WIDTH)}
    shapes |= {"blk.0.ffn_up.bias": (2 * WIDTH,), "token_types.weight": (2, WIDTH), "position_embd.weight": (64, WIDTH)}
    for norm in ("token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"):
        shapes |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    return _write(path, writer, _drawn(shapes))


def _drawn(shapes: dict[str, tuple[int, ...]]) -> Tensors:
    random = np.random.Generator(np.random.PCG64(1))
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _write(path: Path, writer: gguf.GGUFWriter, tensors: Tensors) -> Path:
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(1)
    with contextlib.closing(writer):
        for name, values in {**_drawn({"token_embd.weight": (VOCABULARY, WIDTH)}), **tensors}.items():
            writer.add_tensor(name, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    return path


def test_a_recurrent_model_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="a recurrent model keeps state"):
        open_engine(write_recurrent(tmp_path / "model.gguf"))


def test_a_model_that_embeds_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=r"model\.gguf embeds texts and writes none"):
        open_engine(write_embedder(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("was", "becomes", "reason"),
    [
        (b"GGUF", b"hell", "invalid magic"),
        (b"GGUF\x03", b"GGUF\x63", "version 99"),
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0llamx", "unknown model architecture: 'llamx'"),
        (b"llama.block_count", b"llama.block_counx", "key not found in model: llama.block_count"),
        (b"blk.1.attn_q.weight", b"blk.1.attn_q.weighx", "'blk.1.attn_q.weight' not found"),
    ],
)
def test_a_broken_file_is_refused(
    model: Path, library: Path, tmp_path: Path, was: bytes, becomes: bytes, reason: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes().replace(was, becomes, 1))
    with pytest.raises(ModelRefused, match=reason) as caught:
        open_engine(broken)
    assert "\n" not in str(caught.value)

"""Safetensors to fused parameters: every tensor in its place, and a clear line for every broken file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.families import read_config
from velollm_cuda.models.parameters import Parameters
from velollm_cuda.weights import INDEX, checkpoint_files, load_parameters, random_parameters

from velollm_core.errors import ModelFileError

CPU = torch.device("cpu")
SHAPE = {
    "architectures": ["Qwen3ForCausalLM"], "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 50,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
}  # fmt: skip
CONFIG = read_config(SHAPE, "config.json")
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A checkpoint of `CONFIG` in the names of the hub, each value its own."""
    layer = {
        "input_layernorm": (16,), "post_attention_layernorm": (16,), "self_attn.q_norm": (8,), "self_attn.k_norm": (8,),
        "self_attn.q_proj": (32, 16), "self_attn.k_proj": (16, 16), "self_attn.v_proj": (16, 16),
        "self_attn.o_proj": (16, 32), "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24),
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (50, 16), "model.norm.weight": (16,), "lm_head.weight": (50, 16)}
    shapes |= {f"model.layers.{i}.{name}.weight": shape for i in range(2) for name, shape in layer.items()}
    random = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=random).to(dtype) for name, shape in shapes.items()}


def load(folder: Path, config: ModelConfig = CONFIG, dtype: torch.dtype = torch.float32) -> Parameters:
    return load_parameters(folder, config, dtype, CPU)


def shards(folder: Path) -> None:
    """The checkpoint in two files and an index."""
    names = sorted(tensors())
    files = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, mine in files.items():
        save_file({name: tensors()[name] for name in mine}, folder / file)
    weight_map = {name: file for file, mine in files.items() for name in mine}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def equal(mine: Parameters, theirs: Parameters) -> bool:
    return all(torch.equal(a, b) for a, b in zip(mine.tensors, theirs.tensors, strict=True))


def test_projections_are_stacked_in_order(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    parameters, saved = load(tmp_path), tensors()
    layer = parameters.layers[1]
    letters = [saved[f"model.layers.1.self_attn.{letter}_proj.weight"] for letter in "qkv"]
    assert torch.equal(layer.qkv, torch.cat(letters))
    assert torch.equal(layer.gate_up, torch.cat([saved[f"model.layers.1.mlp.{x}_proj.weight"] for x in ("gate", "up")]))
    assert torch.equal(parameters.head, saved["lm_head.weight"])
    assert torch.equal(parameters.embedding, saved["model.embed_tokens.weight"])
    assert layer.key_norm is not None
    assert torch.equal(layer.key_norm, saved["model.layers.1.self_attn.k_norm.weight"])
    assert parameters.bytes == 4 * sum(tensor.numel() for tensor in saved.values())


def test_several_files_are_one_checkpoint(tmp_path: Path) -> None:
    one, several, unlisted = tmp_path / "one", tmp_path / "several", tmp_path / "unlisted"
    for folder in (one, several, unlisted):
        folder.mkdir()
    save_file(tensors(), one / "model.safetensors")
    shards(several)
    save_file({"left": torch.zeros(3)}, several / "consolidated.safetensors")
    shards(unlisted)
    (unlisted / INDEX).unlink()
    assert [file.name for file in checkpoint_files(several)] == ["a.safetensors", "b.safetensors"]
    assert equal(load(one), load(several))
    assert equal(load(one), load(unlisted))


def test_one_whole_file_is_the_checkpoint_whatever_lies_beside_it(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    save_file({Q_PROJ: torch.zeros(32, 16)}, tmp_path / "training_state.safetensors")
    assert float(load(tmp_path).layers[1].qkv.abs().min()) > 0


@pytest.mark.parametrize("prefix", ["", "model.", "language_model.model.", "model.language_model."])
def test_the_text_half_under_each_name_it_goes_by(tmp_path: Path, prefix: str) -> None:
    named = {
        name.replace("model.", prefix) if "lm_head" not in name else name: tensor for name, tensor in tensors().items()
    }
    save_file(named | {"vision_tower.layers.0.mlp.fc1.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path).norm, tensors()["model.norm.weight"])


def test_types_are_converted_and_norms_stay_wide(tmp_path: Path) -> None:
    save_file(tensors(torch.bfloat16), tmp_path / "model.safetensors")
    parameters = load(tmp_path, dtype=torch.float16)
    assert parameters.layers[0].qkv.dtype == torch.float16
    assert parameters.layers[0].input_norm.dtype == torch.float32
    assert torch.equal(parameters.norm, tensors(torch.bfloat16)["model.norm.weight"].float())


def test_a_tied_head_is_the_embedding_and_counts_once(tmp_path: Path) -> None:
    saved = tensors()
    del saved["lm_head.weight"]
    save_file(saved, tmp_path / "model.safetensors")
    parameters = load(tmp_path, read_config(SHAPE | {"tie_word_embeddings": True}, ""))
    assert parameters.head is parameters.embedding
    assert parameters.bytes == 4 * sum(tensor.numel() for tensor in saved.values())
    with pytest.raises(ModelFileError, match=r"1 tensors are missing, first lm_head\.weight"):
        load(tmp_path)


def test_what_the_model_does_not_need_is_left_alone(tmp_path: Path) -> None:
    more = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4),
        "model.layers.2.mlp.up_proj.weight": torch.zeros(3),
    }
    save_file(tensors() | more | {"vision.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    load(tmp_path)


Damage = Callable[[Path], None]


def changed(**changes: Tensor | None) -> Damage:
    """A checkpoint with one tensor replaced, or missing."""

    def damage(folder: Path) -> None:
        kept = {name: tensor for name, tensor in (tensors() | changes).items() if tensor is not None}
        save_file(kept, folder / "model.safetensors")

    return damage


def bytes_of(content: Callable[[bytes], bytes]) -> Damage:
    """A checkpoint whose file is damaged."""
    return lambda folder: (folder / "model.safetensors").write_bytes(content(save(tensors())))  # type: ignore[func-returns-value]


def index_of(text: str) -> Damage:
    """A checkpoint whose index is ``text``."""
    return lambda folder: (folder / INDEX).write_text(text)  # type: ignore[func-returns-value]


def lost_shard(folder: Path) -> None:
    shards(folder)
    (folder / "b.safetensors").unlink()


BROKEN: dict[str, tuple[Damage, str]] = {
    "empty folder": (lambda folder: None, "no safetensors files; give a model folder"),
    "empty file": (bytes_of(lambda content: b""), r"model\.safetensors: cannot be read"),
    "truncated": (bytes_of(lambda content: content[:-100]), r"model\.safetensors: cannot be read"),
    "truncated header": (bytes_of(lambda content: content[:50]), r"model\.safetensors: cannot be read"),
    "no safetensors": (bytes_of(lambda content: b"PK" + content), r"model\.safetensors: cannot be read"),
    "a tensor is missing": (changed(**{Q_PROJ: None}), "1 tensors are missing, first layers.1.self_attn.q_proj.weight"),
    "wrong shape": (changed(**{Q_PROJ: torch.zeros(32, 17)}), r"q_proj\.weight: shape \[32, 17\], .* says \[32, 16\]"),
    "transposed": (changed(**{Q_PROJ: torch.zeros(16, 32)}), r"shape \[16, 32\]"),
    "integers": (changed(**{Q_PROJ: torch.zeros(32, 16, dtype=torch.int8)}), "torch.int8 is a quantized weight"),
    "fp8": (changed(**{Q_PROJ: torch.zeros(32, 16).to(torch.float8_e4m3fn)}), "float8_e4m3fn is a quantized weight"),
    "a bias too many": (
        changed(**{"model.layers.0.self_attn.q_proj.bias": torch.zeros(32)}), r"q_proj\.bias: config\.json says nothing"
    ),
    "sinks": (changed(**{"model.layers.0.self_attn.sinks": torch.zeros(4)}), r"attn\.sinks: config\.json says nothing"),
    "gptq": (
        changed(**{Q_PROJ: None, Q_PROJ.replace("weight", "qweight"): torch.zeros(2, 16, dtype=torch.int32)}),
        r"q_proj\.qweight: is part of a quantized weight",
    ),
    "a scale": (changed(**{f"{Q_PROJ}_scale": torch.ones(32, 1)}), r"weight_scale: is part of a quantized weight"),
    "twice": (changed(**{"norm.weight": torch.zeros(16)}), r"norm\.weight: is there twice"),
    "pickles": (
        lambda folder: (folder / "pytorch_model.bin").write_bytes(b"PK"),  # type: ignore[func-returns-value]
        r"no safetensors files, only pytorch_model\.bin, which",
    ),
    "a file of the index is missing": (lost_shard, r"b\.safetensors: cannot be read"),
    "index is no JSON": (index_of("{"), "not a safetensors index"),
    "index is a list": (index_of("[]"), "not a safetensors index"),
    "index without a map": (index_of("{}"), "not a safetensors index"),
    "index leads astray": (index_of('{"weight_map": {"a": "../b.safetensors"}}'), "no file beside it"),
    "index of numbers": (index_of('{"weight_map": {"a": 3}}'), "names 3"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_checkpoint_is_one_line(tmp_path: Path, damage: Damage, message: str) -> None:
    damage(tmp_path)
    with pytest.raises(ModelFileError, match=message) as failure:
        load(tmp_path)
    assert "\n" not in str(failure.value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 3000), st.binary(min_size=1, max_size=3), st.booleans())
def test_any_damage_is_noticed_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, at: int, by: bytes, cut: bool
) -> None:
    """The header is JSON of untrusted lengths and offsets: what damages it ends in our error, never in another."""
    content = save(tensors())
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "model.safetensors").write_bytes(content[:at] if cut else content[:at] + by + content[at + len(by) :])
    try:
        load(folder)
    except ModelFileError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - either outcome is right


def test_random_parameters_come_from_their_seed() -> None:
    one, same, other = (random_parameters(CONFIG, torch.float32, CPU, seed) for seed in (1, 1, 2))
    assert equal(one, same)
    assert not equal(one, other)
    assert (one.norm == 1).all()
    assert 0.01 < float(one.head.std()) < 0.03

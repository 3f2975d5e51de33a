"""Safetensors to fused parameters, each tensor read once and straight to its place."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from attrs import define, field
from torch import Tensor

from velollm_core.errors import ModelFileError
from velollm_cuda.models.config import ModelConfig
from velollm_cuda.models.parameters import LayerParameters, Parameters

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
# What stands before a layer's name, and before the text half's where a model reads pictures as well.
PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.")
# Older checkpoints carry the rotary frequencies, which `config.json` gives.
HARMLESS = ("rotary_emb.inv_freq",)
OTHERS = (".bin", ".pt", ".pth", ".gguf")
PACKED = (
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "weight_packed",
    "weight_scale",
    "weight_scale_inv",
    "absmax",
)


def empty_parameters(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Parameters:
    """Parameters of ``config``'s shapes, values undefined."""
    hidden, size = config.hidden, config.head_size
    query, both = config.heads * size, (config.heads + 2 * config.kv_heads) * size

    def matrix(*shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    def norm(width: int, present: bool = True) -> Tensor | None:
        return torch.empty(width, dtype=torch.float32, device=device) if present else None

    def needed(width: int) -> Tensor:
        return torch.empty(width, dtype=torch.float32, device=device)

    layers = tuple(
        LayerParameters(
            input_norm=needed(hidden),
            qkv=matrix(both, hidden),
            qkv_bias=matrix(both) if config.query_bias else None,
            query_norm=norm(size, config.qk_norm),
            key_norm=norm(size, config.qk_norm),
            output=matrix(hidden, query),
            output_bias=matrix(hidden) if config.output_bias else None,
            attention_post_norm=norm(hidden, config.post_norms),
            feed_forward_norm=needed(hidden),
            gate_up=matrix(2 * config.feed_forward, hidden),
            down=matrix(hidden, config.feed_forward),
            feed_forward_post_norm=norm(hidden, config.post_norms),
        )
        for _ in range(config.layers)
    )
    embedding = matrix(config.vocabulary, hidden)
    return Parameters(
        embedding, layers, needed(hidden), embedding if config.tied else matrix(config.vocabulary, hidden)
    )


def random_parameters(config: ModelConfig, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Parameters:
    """Parameters drawn from ``seed``: for benchmarks, where only their number matters."""
    parameters = empty_parameters(config, dtype, device)
    generator = torch.Generator(device).manual_seed(seed)
    for tensor in parameters.tensors:
        if tensor.dtype == torch.float32 and tensor.dim() == 1:
            tensor.fill_(1.0)
        else:
            tensor.normal_(0, 0.02, generator=generator)
    return parameters


def load_parameters(folder: Path, config: ModelConfig, dtype: torch.dtype, device: torch.device) -> Parameters:
    """The parameters in the safetensors files of ``folder``.

    Raises:
        ModelFileError: there are none, one cannot be read, or a tensor is missing or of another shape.
    """
    parameters = empty_parameters(config, dtype, device)
    loader = _Loader(_destinations(config, parameters), config)
    for name, tensor in _read(folder, device):
        loader.place(name, tensor)
    loader.finish(folder)
    return parameters


def checkpoint_files(folder: Path) -> list[Path]:
    """The safetensors files of a model's folder: those of its index, the one whole file, or all there are."""
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(f"{index}: not a safetensors index ({error})") from error
        if astray := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise ModelFileError(f"{index}: names {astray[0]!r}, which is no file beside it")
        return [folder / name for name in names]
    if (folder / WHOLE).exists():
        return [folder / WHOLE]
    return sorted(folder.glob("*.safetensors"))


@define
class _Loader:
    destinations: Mapping[str, Tensor]
    config: ModelConfig
    seen: set[str] = field(factory=set)

    def place(self, name: str, tensor: Tensor) -> None:
        """Copy ``tensor`` to where ``name`` belongs; what no layer of the model has is left alone."""
        prefix = next((each for each in PREFIXES if name.startswith(each)), "")
        name = name.removeprefix(prefix)
        target = self.destinations.get(name)
        if target is None:
            self._refuse_stranger(name)
            return
        if name in self.seen:
            raise ModelFileError(f"tensor {name}: is there twice; which of them is meant, nothing says")
        if target.shape != tensor.shape:
            raise ModelFileError(f"tensor {name}: shape {list(tensor.shape)}, config.json says {list(target.shape)}")
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            raise ModelFileError(f"tensor {name}: {tensor.dtype} is a quantized weight; take the bf16 checkpoint")
        unit = self.config.unit_norm and name.endswith("norm.weight")
        target.copy_(tensor.float() + 1.0 if unit else tensor)
        self.seen.add(name)

    def _refuse_stranger(self, name: str) -> None:
        """A weight that a layer has and this engine would leave out changes the answer."""
        parts = name.split(".")
        mine = len(parts) > 2 and parts[0] == "layers" and parts[1].isdecimal() and int(parts[1]) < self.config.layers
        if not mine or name.endswith(HARMLESS):
            return
        if parts[-1] in PACKED:
            raise ModelFileError(f"tensor {name}: is part of a quantized weight; take the bf16 checkpoint")
        raise ModelFileError(f"tensor {name}: config.json says nothing of it; the model would answer wrong without")

    def finish(self, folder: Path) -> None:
        """Refuse a checkpoint that lacks a tensor: an unset parameter would answer nonsense."""
        missing = sorted(self.destinations.keys() - self.seen)
        if missing:
            raise ModelFileError(f"{folder}: {len(missing)} tensors are missing, first {missing[0]}")


def _destinations(config: ModelConfig, parameters: Parameters) -> dict[str, Tensor]:
    places = {"embed_tokens.weight": parameters.embedding, "norm.weight": parameters.norm}
    if not config.tied:
        places["lm_head.weight"] = parameters.head
    for index, layer in enumerate(parameters.layers):
        found = _layer_destinations(config, layer)
        places |= {f"layers.{index}.{name}": tensor for name, tensor in found.items() if tensor is not None}
    return places


def _layer_destinations(config: ModelConfig, layer: LayerParameters) -> dict[str, Tensor | None]:
    size = config.head_size
    sizes = [config.heads * size, config.kv_heads * size, config.kv_heads * size]
    gate, up = layer.gate_up.chunk(2)
    before = "pre_feedforward_layernorm" if config.post_norms else "post_attention_layernorm"
    places: dict[str, Tensor | None] = {
        "input_layernorm.weight": layer.input_norm,
        f"{before}.weight": layer.feed_forward_norm,
        "self_attn.q_norm.weight": layer.query_norm,
        "self_attn.k_norm.weight": layer.key_norm,
        "self_attn.o_proj.weight": layer.output,
        "self_attn.o_proj.bias": layer.output_bias,
        "mlp.gate_proj.weight": gate,
        "mlp.up_proj.weight": up,
        "mlp.down_proj.weight": layer.down,
    }
    if config.post_norms:
        places["post_attention_layernorm.weight"] = layer.attention_post_norm
        places["post_feedforward_layernorm.weight"] = layer.feed_forward_post_norm
    for kind, tensor in (("weight", layer.qkv), ("bias", layer.qkv_bias)):
        if tensor is not None:
            parts = zip("qkv", tensor.split(sizes), strict=True)
            places |= {f"self_attn.{letter}_proj.{kind}": part for letter, part in parts}
    return places


def _read(folder: Path, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    files = checkpoint_files(folder)
    if not files:
        raise ModelFileError(f"{folder}: no safetensors files{_instead(folder)}; give a model folder or a hub id")
    for path in files:
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ModelFileError(f"{path}: cannot be read ({error})") from error


def _instead(folder: Path) -> str:
    """What is there where safetensors are not."""
    found = sorted(path.name for path in folder.iterdir() if path.suffix in OTHERS)
    return f", only {found[0]}, which this engine does not read" if found else ""

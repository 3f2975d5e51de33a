"""The models of a fake Ollama: what is on its disk, and what is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from attrs import define, field

from velollm_ollama.parse import FOREVER, parse_duration
from velollm_ollama.tables.parameters import LOADING, PARAMETERS

LAYERS: Final = 4
WIDTH: Final = 256
DIGEST: Final = "5f2bd0a9ed2f8d28681c26c58f9ce264b6ef4be058271752bd9f3cf25a7cec38"


@define
class FakeModel:
    """One model on disk. ``words`` is what it says, over and over; ``stops_after`` tokens it ends by itself."""

    info: dict[str, Any]
    tensors: list[dict[str, Any]] = field(factory=list)
    parameters: dict[str, Any] = field(factory=dict)
    words: tuple[str, ...] = ("One", " chunk", " is", " not", " a", " token", ".")
    stops_after: int | None = None
    parent: str = ""
    size: int = 6616342
    capabilities: tuple[str, ...] = ("completion",)

    @property
    def trained(self) -> int:
        """The context it was trained for, tokens."""
        return int(self.info[f"{self.info['general.architecture']}.context_length"])


@define
class FakeLoaded:
    """One model in memory. ``context`` is per slot; ``expires`` None is never; ``seen`` are prompts in its cache."""

    options: dict[str, Any]
    context: int
    expires: datetime | None
    seen: set[str] = field(factory=set)


def tiny_model(**changes: Any) -> FakeModel:
    """A llama of 4 layers and 6.6 MB, shaped like the one that the recordings were made with."""
    info: dict[str, Any] = {
        "general.architecture": "llama",
        "general.file_type": 1,
        "general.parameter_count": 3301632,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.block_count": LAYERS,
        "llama.context_length": 2048,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": 768,
        "llama.rope.dimension_count": 64,
        "llama.vocab_size": 300,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": None,
    }
    return FakeModel(info | changes, tiny_tensors())


def tiny_tensors() -> list[dict[str, Any]]:
    """The tensor table of that model."""
    shapes = {
        "attn_k": (WIDTH, 128),
        "attn_output": (WIDTH, WIDTH),
        "attn_q": (WIDTH, WIDTH),
        "attn_v": (WIDTH, 128),
        "ffn_down": (768, WIDTH),
        "ffn_gate": (WIDTH, 768),
        "ffn_up": (WIDTH, 768),
    }
    names = {"output": (WIDTH, 300), "token_embd": (WIDTH, 300)}
    names |= {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in shapes.items()}
    norms = ["output_norm", *(f"blk.{layer}.{kind}_norm" for layer in range(LAYERS) for kind in ("attn", "ffn"))]
    tensors = [{"name": f"{name}.weight", "type": "F16", "shape": list(shape)} for name, shape in names.items()]
    return tensors + [{"name": f"{name}.weight", "type": "F32", "shape": [WIDTH]} for name in norms]


def full_name(name: str) -> str:
    """The name with its tag."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def wrong_option(options: Mapping[str, Any]) -> str | None:
    """The error for the first option of a wrong type; unknown ones are ignored, floats for whole numbers are cut."""
    kinds = {"int": ("integer", (int, float)), "float": ("float32", (int, float)), "bool": ("boolean", (bool,))}
    for name, value in options.items():
        parameter = PARAMETERS.get(name)
        if parameter is None or parameter.kind not in kinds:
            continue
        word, types = kinds[parameter.kind]
        if not isinstance(value, types) or (isinstance(value, bool) and parameter.kind != "bool"):
            return f'option "{name}" must be of type {word}'
    return None


def loading(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options whose difference reloads a model."""
    return {name: options[name] for name in LOADING if name in options}


def expiry(keep_alive: Any, default: int) -> datetime | None:
    """When a model will be unloaded; None for never. ``default`` is in nanoseconds.

    Raises:
        ValueError: text that is no duration.
    """
    if keep_alive is None:
        left = default
    elif isinstance(keep_alive, str):
        parsed = parse_duration(keep_alive)
        if parsed is None:
            raise ValueError(f'time: invalid duration "{keep_alive}"')
        left = parsed
    else:
        left = int(keep_alive * 10**9)
    if left < 0 or left == FOREVER:
        return None
    return datetime.now(UTC) + timedelta(seconds=left / 1e9)

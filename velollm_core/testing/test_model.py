"""A real model that nobody has to download: a small llama made from a seed, written as a GGUF.

Every weight comes from the raw output of a PCG64 bit generator, whose stream numpy keeps stable over versions, so the
same size gives the same bytes everywhere. The text it writes means nothing, but it is printable, never ends by itself,
and costs an engine exactly what a trained model of this shape costs. The draft is the model's own first layer with its
embeddings and head: the later layers speak softly, so that about 47% of its guesses are accepted.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import frozen

from velollm_core.testing.test_vocabulary import CHAT_TEMPLATE, Vocabulary, make_vocabulary

if TYPE_CHECKING:
    import gguf
    import numpy as np

Size = Literal["small", "medium"]


@frozen
class ModelShape:
    """Dimensions of a test model; ``quantized`` matrices are Q8_0, otherwise F16.

    ``later_volume`` scales what every layer after the first adds to the residual stream.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocabulary: int
    context: int
    quantized: bool
    seed: int
    later_volume: float

    @property
    def kv_width(self) -> int:
        """Elements of K (and of V) per token and layer."""
        return self.width // self.heads * self.kv_heads


SHAPES: dict[Size, ModelShape] = {
    "small": ModelShape(4, 256, 4, 2, 768, 300, 2048, quantized=False, seed=1, later_volume=0.15),
    "medium": ModelShape(12, 1024, 16, 4, 2816, 32000, 8192, quantized=True, seed=2, later_volume=0.05),
}


def write_test_model(path: Path, size: Size | ModelShape = "small", draft: bool = False) -> Path:
    """Write the test model of ``size`` (6.3 MiB F16 or 204 MiB Q8_0), or its first-layer draft, to the file ``path``.

    A `ModelShape` of one's own makes a model of other dimensions. The file appears whole or not at all. Needs the
    packages gguf and numpy, which come with velollm-llamacpp.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    unfinished = Path(name)
    try:
        _write(unfinished, size if isinstance(size, ModelShape) else SHAPES[size], draft=draft)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write(path: Path, shape: ModelShape, *, draft: bool) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    vocabulary = make_vocabulary(shape.vocabulary)
    _add_keys(writer, shape, draft=draft)
    _add_tokenizer(writer, vocabulary)
    _add_tensors(writer, shape, vocabulary, layers=1 if draft else shape.layers)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def _add_keys(writer: gguf.GGUFWriter, shape: ModelShape, *, draft: bool) -> None:
    kind = "Q8_0" if shape.quantized else "F16"
    writer.add_name(f"VeloLLM test model, {shape.layers} layers, {kind}{', draft' if draft else ''}")
    writer.add_description("Made from a seed; knows nothing. For measuring engines.")
    writer.add_file_type(7 if shape.quantized else 1)
    writer.add_quantization_version(2)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(1 if draft else shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocabulary)


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_bos_token_id(vocabulary.end_of_text)
    writer.add_eos_token_id(vocabulary.end_of_text)
    writer.add_eot_token_id(vocabulary.end_of_turn)
    writer.add_pad_token_id(vocabulary.end_of_text)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _add_tensors(writer: gguf.GGUFWriter, shape: ModelShape, vocabulary: Vocabulary, *, layers: int) -> None:
    import numpy as np

    weights = _Weights(writer, shape)
    weights.matrix("token_embd", shape.vocabulary, shape.width, std=1.0)
    weights.matrix("output", shape.vocabulary, shape.width, std=4.0 / shape.width**0.5, silent=vocabulary.silent)
    weights.vector("output_norm", np.ones(shape.width, np.float32))
    for layer in range(layers):
        volume = shape.later_volume if layer else 1.0
        for name, rows, columns, gain in (
            ("attn_q", shape.width, shape.width, 1.0),
            ("attn_k", shape.kv_width, shape.width, 1.0),
            ("attn_v", shape.kv_width, shape.width, 1.0),
            ("attn_output", shape.width, shape.width, 2.0 * volume),
            ("ffn_gate", shape.feed_forward, shape.width, 1.0),
            ("ffn_up", shape.feed_forward, shape.width, 1.0),
            ("ffn_down", shape.width, shape.feed_forward, 2.0 * volume),
        ):
            weights.matrix(f"blk.{layer}.{name}", rows, columns, std=gain / columns**0.5)
        for name in ("attn_norm", "ffn_norm"):
            weights.vector(f"blk.{layer}.{name}", np.ones(shape.width, np.float32))


@frozen
class _Weights:
    """Draws each matrix from a stream of its own, so that a draft's first layer equals the model's."""

    writer: gguf.GGUFWriter
    shape: ModelShape

    def vector(self, name: str, values: np.ndarray) -> None:
        self.writer.add_tensor(f"{name}.weight", values)

    def matrix(self, name: str, rows: int, columns: int, *, std: float, silent: tuple[int, ...] = ()) -> None:
        import gguf
        import numpy as np

        seed = np.random.SeedSequence([self.shape.seed, *name.encode()])
        bytes_each = 1 if self.shape.quantized else 2
        noise = np.random.PCG64(seed).random_raw(rows * columns * bytes_each // 8).astype("<u8", copy=False)
        if self.shape.quantized:
            values = _q8_0(noise.view(np.uint8).reshape(rows, columns), std)
            kind = gguf.GGMLQuantizationType.Q8_0
        else:
            spread = np.float32(std * 3**0.5 / 2**15)
            values = (noise.view("<i2").reshape(rows, columns) * spread).astype(np.float16)
            kind = gguf.GGMLQuantizationType.F16
        values[list(silent)] = 0
        self.writer.add_tensor(f"{name}.weight", values, raw_dtype=kind)


def _q8_0(integers: np.ndarray, std: float) -> np.ndarray:
    """Blocks of 32 int8 behind one F16 scale: uniform noise of deviation ``std``, never a float in between."""
    import numpy as np

    rows, columns = integers.shape
    blocks = np.empty((rows, columns // 32, 34), np.uint8)
    blocks[:, :, :2] = np.frombuffer(np.float16(std * 3**0.5 / 128).tobytes(), np.uint8)
    blocks[:, :, 2:] = integers.reshape(rows, columns // 32, 32)
    return blocks.reshape(rows, -1)

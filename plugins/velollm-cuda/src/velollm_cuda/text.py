"""A model's way with text, as the core's server asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attrs import frozen

from velollm_core.backends.request import Message
from velollm_cuda.detokenize import Detokenizer
from velollm_cuda.generation import GenerationConfig
from velollm_cuda.models.reading import read_model_config
from velollm_cuda.tokens import Tokenizer


@frozen(eq=False)
class CudaTextModel:
    """Implements `velollm_core.serving.text_model.TextModel` over a model's own tokenizer and template.

    ``sampling`` is how the model's authors sample, in the words of `SamplingParams`.
    """

    name: str
    tokenizer: Tokenizer
    stop_ids: frozenset[int]
    vocab_size: int
    sampling: Mapping[str, float] = {}

    @classmethod
    def load(cls, folder: Path, name: str) -> CudaTextModel:
        """The text side of the model in ``folder``.

        Raises:
            ModelFileError: a file is missing or cannot be read.
            ModelRefused: the family is not one of ours.
            VeloError: the authors' way of sampling has no meaning.
        """
        vocabulary = read_model_config(folder).vocabulary
        tokenizer, generation = Tokenizer.load(folder), GenerationConfig.load(folder)
        own = generation.params
        sampling = {each: getattr(own, each) for each in generation.sampling}
        return cls(name, tokenizer, stop_ids(generation, tokenizer), vocabulary, sampling)

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, with what the model expects at a beginning."""
        return self.tokenizer.encode(text)

    def chat(self, messages: Sequence[Message], **switches: object) -> list[int]:
        """The tokens of a conversation up to where the answer begins; ``switches`` are the template's own.

        Raises:
            VeloError: the model has no template, or its template refuses these messages.
        """
        turns = [{"role": each.role, "content": each.content} for each in messages]
        return self.tokenizer.encode_chat(turns, **switches)  # type: ignore[arg-type]

    def detokenizer(self) -> Detokenizer:
        """A fresh one, for one answer."""
        return self.tokenizer.detokenizer()


def stop_ids(generation: GenerationConfig, tokenizer: Tokenizer | None) -> frozenset[int]:
    """The tokens that end an answer: those of the configuration, and the tokenizer's own end of text."""
    own = tokenizer.eos_id if tokenizer else None
    return frozenset(generation.eos_ids) | (frozenset() if own is None else {own})

"""What the server must know of a model: how it reads and writes text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from velollm_core.backends.request import Message


class Detokenizer(Protocol):
    """Turns one answer's tokens into text as they come."""

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens add; bytes that are no whole character yet are held back."""

    def finish(self) -> str:
        """What was held back."""


class TextModel(Protocol):
    """A model's tokenizer and chat template. Called from several threads."""

    @property
    def name(self) -> str:
        """What requests call the model."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer; they have no text."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below it."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a prompt, with what the model expects at a beginning."""

    def chat(self, messages: Sequence[Message], **switches: object) -> list[int]:
        """The tokens of a conversation up to where the answer begins; ``switches`` are the template's own.

        Raises:
            VeloError: the template does not allow these messages.
        """

    def detokenizer(self) -> Detokenizer:
        """A fresh one, for one answer."""

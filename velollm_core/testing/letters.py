"""A model whose every token is one letter: what servers are tested with where no real one is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from string import ascii_letters

from velollm_core.backends.request import Message
from velollm_core.errors import VeloError

LETTERS = ascii_letters[:50]


class LetterModel:
    """Implements the server's `TextModel` over 50 letters; any other character stands for one of them."""

    def __init__(self, name: str = "letters", stop_ids: frozenset[int] = frozenset()) -> None:
        self.name = name
        self.stop_ids = stop_ids
        self.vocab_size = len(LETTERS)

    def encode(self, text: str) -> list[int]:
        """One token a character."""
        return [LETTERS.find(letter) if letter in LETTERS else ord(letter) % 50 for letter in text]

    def decode(self, token_ids: Iterable[int]) -> str:
        """One letter a token."""
        return "".join(LETTERS[token] for token in token_ids)

    def chat(self, messages: Sequence[Message], **switches: object) -> list[int]:
        """Each message after the first letter of its role; a conversation may not begin with the assistant.

        The names of ``switches`` stand in front.
        """
        if messages[0].role == "assistant":
            raise VeloError("the template wants a user first")
        turns = "".join(message.role[0] + message.content for message in messages)
        return self.encode("".join(switches) + turns + "a")

    def detokenizer(self) -> _Letters:
        """Letters as they come."""
        return _Letters()


class _Letters:
    def feed(self, token_ids: Iterable[int]) -> str:
        return "".join(LETTERS[token] for token in token_ids)

    def finish(self) -> str:
        return ""

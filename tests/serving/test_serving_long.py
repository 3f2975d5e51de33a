"""Prompts far longer than the context: refused without being read to their end."""

from __future__ import annotations

import asyncio

import pytest

from velollm_core.backends.request import Message
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import OutOfBlocks
from velollm_core.serving.answers import LETTERS_A_TOKEN, make_sequences
from velollm_core.serving.asked import Asked, read_chat, read_completion
from velollm_core.testing.letters import LetterModel

CONTEXT = 100
LETTERS = "x" * 1_000_000


class Reader(LetterModel):
    """Notes the longest text it was given; takes a run of spaces for one letter."""

    longest = 0

    def encode(self, text: str) -> list[int]:
        self.longest = max(self.longest, len(text))
        return super().encode(" ".join(text.split()))

    def chat(self, messages: object, **switches: object) -> list[int]:
        """Of a conversation only what users say."""
        assert isinstance(messages, tuple)
        return self.encode(
            "".join(each.content for each in messages if isinstance(each, Message) and each.role == "user")
        )


def make(asked: Asked, model: Reader) -> list[list[Sequence]]:
    return asyncio.run(make_sequences(asked, "name", model, CONTEXT))


@pytest.mark.parametrize(
    "asked",
    [
        read_completion({"prompt": LETTERS}),
        read_completion({"prompt": ["x", LETTERS]}),
        read_chat({"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": LETTERS}]}),
    ],
    ids=["completion", "several", "chat"],
)
def test_what_is_far_too_long_is_refused_by_its_beginning(asked: Asked) -> None:
    model = Reader()
    with pytest.raises(OutOfBlocks, match="the prompt has more than 200 tokens, and 100 is the most"):
        make(asked, model)
    assert model.longest == LETTERS_A_TOKEN * CONTEXT


def test_what_is_a_little_too_long_is_counted() -> None:
    with pytest.raises(OutOfBlocks, match="the prompt has 1600 tokens"):
        make(read_completion({"prompt": "x" * LETTERS_A_TOKEN * CONTEXT}), Reader())


@pytest.mark.parametrize("text", ["a" + " " * 100_000 + "b", " " * 100_000 + "ab", "a b" + " " * 100_000])
def test_many_letters_of_few_tokens_fit(text: str) -> None:
    [[sequence]] = make(read_completion({"prompt": text}), Reader())
    assert sequence.num_prompt_tokens == len(" ".join(text.split()))


def test_what_a_template_may_leave_out_is_not_held_against_a_chat() -> None:
    turns = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": LETTERS},
        {"role": "user", "content": "y"},
    ]
    [[sequence]] = make(read_chat({"messages": turns}), Reader())
    assert sequence.num_prompt_tokens == 2

"""What is asked under load, request by request."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from velollm_core.backends.request import Message, Request, SamplingParams
from velollm_core.benchmark.prompts import Prompts, filler

if TYPE_CHECKING:
    from velollm_core.benchmark.load import Load

TASK = "load"


@frozen
class Ask:
    """A request and the task that its figures belong to."""

    task: str
    request: Request


@define
class Asking:
    """Makes the requests of ``load``; ``characters`` is how many characters of our words make a token."""

    load: Load
    prompts: Prompts
    model: str
    characters: float
    seed: int = 0
    _made: int = field(default=0, init=False)

    def next(self) -> Ask:
        """The next request, unique from its first tokens."""
        number = self._made
        self._made += 1
        rng = random.Random(f"{self.seed}/{number}")
        answer = self.load.answer.draw(rng)
        if self.load.entries:
            return Ask(TASK, self._recorded(number, answer))
        text = self._text(rng)
        return Ask(TASK, Request(self.model, text, sampling=_sampling(answer), cache_prompt=False))

    def conversation(self) -> Conversation:
        """A new conversation: its first words are unique, its later turns repeat all that came before."""
        number = self._made
        self._made += 1
        return Conversation(self, random.Random(f"{self.seed}/{number}"))

    def _recorded(self, number: int, answer: int) -> Request:
        entry = self.load.entries[number % len(self.load.entries)]
        sampling = _sampling(entry.max_tokens or answer)
        if not entry.messages:
            return Request(self.model, f"{self.prompts.nonce()} {entry.prompt}", sampling=sampling, cache_prompt=False)
        first, *rest = entry.messages
        messages = (Message(first.role, f"{self.prompts.nonce()} {first.content}"), *rest)
        return Request(self.model, messages=messages, sampling=sampling, cache_prompt=False)

    def _text(self, rng: random.Random) -> str:
        wanted = round(self.load.prompt.draw(rng) * self.characters)
        nonce = self.prompts.nonce()
        return f"{nonce} {filler(max(1, wanted - len(nonce)), rng.getrandbits(32))}"


@define
class Conversation:
    """Turns that build on each other. After each one `answer` must be told what the model said."""

    asking: Asking
    rng: random.Random
    messages: list[Message] = field(factory=list)

    def next(self) -> Ask:
        """The next turn, with all that was said before it."""
        self.messages.append(Message("user", self.asking._text(self.rng)))  # noqa: SLF001 - two halves of one thing
        turn = (len(self.messages) + 1) // 2
        sampling = _sampling(self.asking.load.answer.draw(self.rng))
        request = Request(self.asking.model, messages=tuple(self.messages), sampling=sampling, cache_prompt=True)
        return Ask(f"turn_{turn}", request)

    def answer(self, text: str) -> None:
        """What the model said to the last turn."""
        self.messages.append(Message("assistant", text))


def _sampling(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True)

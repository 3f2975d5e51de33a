"""What is asked under load, request by request."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from attrs import define, field, frozen

from velollm_core.backends.request import Message, Request, SamplingParams
from velollm_core.benchmark.prompts import NONCE_LETTERS, Prompts, filler

if TYPE_CHECKING:
    from velollm_core.benchmark.load import Load

LOAD = "load"


@frozen
class Ask:
    """A request and the task that its figures belong to."""

    task: str
    request: Request


@define
class Asking:
    """Makes the requests of ``load``; ``characters`` is how many characters of our words make a token.

    Requests are unique from their first tokens; with ``warm`` they repeat on purpose.
    """

    load: Load
    prompts: Prompts
    model: str
    characters: float
    seed: int = 0
    warm: bool = False
    _made: int = field(default=0, init=False)
    _prefix: str = field(default="", init=False)

    def next(self) -> Ask:
        """The next request."""
        number = self._made
        self._made += 1
        rng = random.Random(f"{self.seed}/{number}")
        answer = self.load.answer.draw(rng)
        if self.load.entries:
            return Ask(LOAD, self._recorded(number, answer))
        text = self._text(self._same() or rng)
        shared = self._shared()
        whole = f"{shared}\n{text}" if shared else text
        return Ask(LOAD, Request(self.model, whole, sampling=_sampling(answer), cache_prompt=self.warm or bool(shared)))

    def conversation(self) -> Conversation:
        """A new conversation: its first words are unique, its later turns repeat all that came before."""
        number = self._made
        self._made += 1
        shared = self._shared()
        messages = [Message("system", shared)] if shared else []
        return Conversation(self, self._same() or random.Random(f"{self.seed}/{number}"), messages)

    def _same(self) -> random.Random | None:
        return random.Random(f"{self.seed}/warm") if self.warm else None

    def _shared(self) -> str:
        """What all requests of this run begin with, unlike any other run's."""
        if not self._prefix and self.load.shared:
            words = filler(round(self.load.shared * self.characters), self.seed)
            self._prefix = self._fresh(words)
        return self._prefix

    def _recorded(self, number: int, answer: int) -> Request:
        entry = self.load.entries[number % len(self.load.entries)]
        sampling = _sampling(entry.max_tokens or answer)
        if not entry.messages:
            return Request(self.model, self._fresh(entry.prompt), sampling=sampling, cache_prompt=self.warm)
        first, *rest = entry.messages
        messages = (Message(first.role, self._fresh(first.content)), *rest)
        return Request(self.model, messages=messages, sampling=sampling, cache_prompt=self.warm)

    def _fresh(self, text: str) -> str:
        """``text`` as no cache has seen it, unless a warm one is what is measured."""
        return text if self.warm else f"{self.prompts.nonce()} {text}"

    def _text(self, rng: random.Random) -> str:
        wanted = round(self.load.prompt.draw(rng) * self.characters)
        return self._fresh(filler(max(1, wanted - NONCE_LETTERS), rng.getrandbits(32)))


@define
class Conversation:
    """Turns that build on each other. After each one `answer` must be told what the model said."""

    asking: Asking
    rng: random.Random
    messages: list[Message]
    turn: int = 0

    def next(self) -> Ask:
        """The next turn, with all that was said before it."""
        self.messages.append(Message("user", self.asking._text(self.rng)))  # noqa: SLF001 - two halves of one thing
        self.turn += 1
        sampling = _sampling(self.asking.load.answer.draw(self.rng))
        request = Request(self.asking.model, messages=tuple(self.messages), sampling=sampling, cache_prompt=True)
        return Ask(f"turn_{self.turn}", request)

    def answer(self, text: str) -> None:
        """What the model said to the last turn."""
        self.messages.append(Message("assistant", text))


def _sampling(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True)

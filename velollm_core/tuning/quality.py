"""Whether other settings change the answers: greedy ones to fixed prompts, compared piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from statistics import fmean, median
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.backends.request import Request, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from velollm_core.backends.backend import Backend
    from velollm_core.backends.request import Chunk

PROMPTS = (
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Explain in two sentences why the sky is blue.",
    "Translate into German: Where is the next station, please?",
    "List three prime numbers above one hundred:",
    "Once upon a time, in a village by the sea, there lived",
    '{"name": "Ada", "born": 1815, "known_for": ',
    "17 + 25 * 2 =",
)
TOKENS = 32
# Rounding alone changes the odd token late in an answer; below this share of equal tokens something else is wrong.
LEAST_SHARE = 0.5


@frozen
class Quality:
    """Answers of a candidate beside those of today's settings.

    ``altered`` are the variations that may change them. Of ``prompts`` answers ``equal`` are the same to the end;
    ``share`` is the mean part of an answer before the first difference, ``first_divergence`` the median place of that
    difference in tokens (None where there is none), of ``tokens``. ``control`` is the ``share`` between two answers of
    today's settings to the same prompts: what is below 1 there is not the candidate's doing.
    """

    altered: tuple[str, ...]
    prompts: int
    tokens: int
    equal: int
    share: float
    first_divergence: int | None
    control: float

    @property
    def acceptable(self) -> bool:
        """Whether the answers stay together for long enough, by today's own measure."""
        return self.share >= LEAST_SHARE * self.control


Answers = Sequence[Sequence[str]]


async def greedy_answers(backend: Backend, model: str) -> list[list[str]]:
    """The pieces of the greedy answer to each of `PROMPTS`.

    Raises:
        BackendError: one of them failed.
    """
    return [await _answer(backend, Request(model, prompt, (), _SAMPLING, cache_prompt=False)) for prompt in PROMPTS]


def compare_answers(altered: Sequence[str], today: Answers, again: Answers, candidate: Answers) -> Quality:
    """How far ``candidate`` goes with ``today``; ``again`` is what today's settings answered a second time."""
    places = [_divergence(one, other) for one, other in zip(today, candidate, strict=True)]
    found = [place for place in places if place is not None]
    return Quality(
        altered=tuple(altered),
        prompts=len(places),
        tokens=TOKENS,
        equal=len(places) - len(found),
        share=_share(today, candidate),
        first_divergence=int(median(found)) if found else None,
        control=_share(today, again),
    )


def quality_line(quality: Quality) -> str:
    """The comparison in a sentence."""
    what = f"{quality.equal} of {quality.prompts} greedy answers are equal to those of today's settings"
    if quality.first_divergence is not None:
        what += f"; the others differ first at token {quality.first_divergence + 1} of {quality.tokens} (median)"
    control = "" if quality.control == 1 else f"; today's settings repeat {quality.control:.0%} of their own"
    return f"{what} ({', '.join(quality.altered)} changed){control}"


_SAMPLING = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)


def _share(first: Answers, second: Answers) -> float:
    return fmean(_equal_part(one, other) for one, other in zip(first, second, strict=True))


def _equal_part(first: Sequence[str], second: Sequence[str]) -> float:
    place = _divergence(first, second)
    return 1.0 if place is None else place / max(len(first), len(second))


def _divergence(first: Sequence[str], second: Sequence[str]) -> int | None:
    """The first place at which the two differ, an end of one among them; None where they are equal."""
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return place
    return None if len(first) == len(second) else min(len(first), len(second))


async def _answer(backend: Backend, request: Request) -> list[str]:
    stream: AsyncGenerator[Chunk] = backend.stream(request)  # type: ignore[assignment]
    if not hasattr(stream, "aclose"):
        return [text async for chunk in stream if (text := chunk.text or chunk.reasoning)]
    async with aclosing(stream) as chunks:
        return [text async for chunk in chunks if (text := chunk.text or chunk.reasoning)]

"""Whether other settings change the answers: greedy ones to fixed prompts, compared piece by piece."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import aclosing
from statistics import fmean, median
from typing import TYPE_CHECKING

from attrs import field, frozen

from velollm_core.backends.request import Request, SamplingParams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from velollm_core.backends.backend import Backend
    from velollm_core.backends.request import Chunk
    from velollm_core.benchmark.exchange import Clock

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
LEAST_PROMPTS = 2
TOKENS = 32
# Rounding alone changes the odd token late in an answer; below this share of equal tokens something else is wrong.
LEAST_SHARE = 0.5


@frozen
class Answer:
    """One answer: its ``pieces`` of text, and each one's margin over the runner-up as `Chunk.margin` has it."""

    pieces: tuple[str, ...]
    margins: tuple[float | None, ...] = field(default=())


@frozen
class Quality:
    """Answers of a candidate beside those of today's settings.

    ``altered`` are the settings that differ and may change them. Of ``prompts`` answers ``equal`` are the same to the
    end; ``share`` is the mean part of an answer before the first difference, ``first_divergence`` the median place of
    that difference in tokens (None where there is none), of ``tokens``; ``margin`` is by how much, in ln of
    probability, today's choices there led over the runners-up (median; None where the server does not say): next to
    nothing means that rounding decides. ``control`` is the ``share`` between two answers of today's settings to the
    same prompts: what is below 1 there is not the candidate's doing.
    """

    altered: tuple[str, ...]
    prompts: int
    tokens: int
    equal: int
    share: float
    first_divergence: int | None
    margin: float | None
    control: float

    @property
    def acceptable(self) -> bool:
        """Whether the answers stay together for long enough, by today's own measure."""
        return self.share >= LEAST_SHARE * self.control


@frozen
class Guarded:
    """What the guard found: ``quality``, or why the answers could not be compared; neither where none can differ."""

    quality: Quality | None = None
    problem: str | None = None

    def notes(self, today: str) -> tuple[str, ...]:
        """It in a sentence, where there is something to say; ``today`` is what the others are compared with."""
        if self.problem is not None:
            return (f"the answers could not be compared: {self.problem}",)
        return (quality_line(self.quality, today),) if self.quality else ()


UNGUARDED = Guarded()


async def greedy_answers(
    backend: Backend,
    model: str,
    count: int = len(PROMPTS),
    *,
    seconds: float | None = None,
    clock: Clock = time.perf_counter,
) -> list[Answer]:
    """The greedy answers to the first ``count`` of `PROMPTS`, fewer where ``seconds`` are over, at least two.

    Raises:
        BackendError: one of them failed.
    """
    began = clock()
    answers: list[Answer] = []
    for prompt in PROMPTS[:count]:
        if seconds is not None and len(answers) >= LEAST_PROMPTS and clock() - began > seconds:
            break
        answers.append(await _answer(backend, Request(model, prompt, (), _SAMPLING, cache_prompt=False)))
    return answers


def compare_answers(
    altered: Sequence[str], today: Sequence[Answer], again: Sequence[Answer], candidate: Sequence[Answer]
) -> Quality:
    """How far ``candidate`` goes with ``today``; ``again`` is what today's settings answered a second time."""
    places = [(one, _divergence(one, other)) for one, other in zip(today, candidate, strict=True)]
    found = [place for _, place in places if place is not None]
    margins = [answer.margins[place] for answer, place in places if place is not None and place < len(answer.margins)]
    known = [margin for margin in margins if margin is not None]
    return Quality(
        altered=tuple(altered),
        prompts=len(places),
        tokens=TOKENS,
        equal=len(places) - len(found),
        share=_share(today, candidate),
        first_divergence=int(median(found)) if found else None,
        margin=median(known) if known else None,
        control=_share(today, again),
    )


def same_answers(one: Sequence[Answer], other: Sequence[Answer]) -> bool:
    """Whether all of them are equal to the end."""
    return all(_divergence(first, second) is None for first, second in zip(one, other, strict=True))


def quality_line(quality: Quality, today: str = "today's settings") -> str:
    """The comparison in a sentence; ``today`` is what the others are compared with."""
    what = f"{quality.equal} of {quality.prompts} greedy answers are equal to those of {today}"
    if quality.first_divergence is not None:
        what += f"; the others differ first at token {quality.first_divergence + 1} of {quality.tokens} (median)"
    if quality.margin is not None:
        what += f", where the token of {today} led by {quality.margin:.3f} in log-probability"
    control = "" if quality.control == 1 else f"; {today} repeats {quality.control:.0%} of its own"
    return f"{what} ({', '.join(quality.altered)} changed){control}"


_SAMPLING = SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True, logprobs=True)


def _share(first: Sequence[Answer], second: Sequence[Answer]) -> float:
    return fmean(_equal_part(one, other) for one, other in zip(first, second, strict=True))


def _equal_part(first: Answer, second: Answer) -> float:
    place = _divergence(first, second)
    return 1.0 if place is None else place / max(len(first.pieces), len(second.pieces))


def _divergence(first: Answer, second: Answer) -> int | None:
    """The first place at which the two differ, an end of one among them; None where they are equal."""
    for place, (one, other) in enumerate(zip(first.pieces, second.pieces, strict=False)):
        if one != other:
            return place
    lengths = len(first.pieces), len(second.pieces)
    return None if lengths[0] == lengths[1] else min(lengths)


async def _answer(backend: Backend, request: Request) -> Answer:
    stream: AsyncGenerator[Chunk] = backend.stream(request)  # type: ignore[assignment]
    if not hasattr(stream, "aclose"):
        return _joined([chunk async for chunk in stream])
    async with aclosing(stream) as chunks:
        return _joined([chunk async for chunk in chunks])


def _joined(chunks: Sequence[Chunk]) -> Answer:
    told = [(text, chunk.margin) for chunk in chunks if (text := chunk.text or chunk.reasoning)]
    return Answer(tuple(text for text, _ in told), tuple(margin for _, margin in told))

"""Answers compared piece by piece."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from velollm_core.backends.request import Chunk, Request
from velollm_core.tuning.quality import PROMPTS, TOKENS, compare_answers, greedy_answers, quality_line


def test_equal_answers() -> None:
    answers = [list("abcd"), list("efgh")]
    quality = compare_answers(["attention"], answers, answers, answers)
    assert (quality.equal, quality.share, quality.first_divergence, quality.control) == (2, 1.0, None, 1.0)
    assert quality.acceptable
    assert quality_line(quality) == ("2 of 2 greedy answers are equal to those of today's settings (attention changed)")


@pytest.mark.parametrize(
    ("candidate", "share", "place", "acceptable"),
    [(["abcX"], 0.75, 3, True), (["aXXX"], 0.25, 1, False), (["ab"], 0.5, 2, True), ([""], 0.0, 0, False)],
)
def test_the_first_difference_decides(candidate: list[str], share: float, place: int, acceptable: bool) -> None:
    today = [list("abcd")]
    quality = compare_answers(["kv"], today, today, [list(text) for text in candidate])
    assert (quality.share, quality.first_divergence, quality.acceptable) == (share, place, acceptable)
    assert quality.equal == 0


def test_what_today_does_not_repeat_is_not_held_against_the_candidate() -> None:
    quality = compare_answers(["kv"], [list("abcd")], [list("abXX")], [list("aXXX")])
    assert quality.control == 0.5
    assert quality.acceptable
    assert "today's settings repeat 50% of their own" in quality_line(quality)


def test_answers_are_greedy_uncached_and_in_pieces() -> None:
    class Echo:
        name = "echo"
        asked: list[Request] = []  # noqa: RUF012

        async def stream(self, request: Request) -> AsyncIterator[Chunk]:
            self.asked.append(request)
            for text in ("a", "", "b"):
                yield Chunk(text)

    backend = Echo()
    assert asyncio.run(greedy_answers(backend, "m")) == [["a", "b"]] * len(PROMPTS)  # type: ignore[arg-type]
    assert all(not each.cache_prompt and each.sampling.temperature == 0 for each in backend.asked)
    assert {each.sampling.max_tokens for each in backend.asked} == {TOKENS}

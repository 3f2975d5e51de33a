"""Answers compared piece by piece, and the guard that compares those of two configurations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from attrs import define, field

from velollm_core.backends.backend import AltersAnswers
from velollm_core.backends.request import Chunk, Request
from velollm_core.backends.setting import Setting, Value
from velollm_core.benchmark.arm import Arm
from velollm_core.benchmark.circumstances import Circumstances
from velollm_core.benchmark.duel import ArmRefused, Duel
from velollm_core.benchmark.guard import guard
from velollm_core.benchmark.quality import (
    LEAST_PROMPTS,
    PROMPTS,
    TOKENS,
    Answer,
    Guarded,
    compare_answers,
    greedy_answers,
    quality_line,
)
from velollm_core.benchmark.session import Session
from velollm_core.benchmark.workload import Task, Workload
from velollm_core.errors import BackendError


def answers(*texts: str, margin: float | None = None) -> list[Answer]:
    return [Answer(tuple(text), (margin,) * len(text)) for text in texts]


def test_equal_answers() -> None:
    same = answers("abcd", "efgh")
    quality = compare_answers(["attention"], same, same, same)
    assert (quality.equal, quality.share, quality.first_divergence, quality.control) == (2, 1.0, None, 1.0)
    assert quality.acceptable
    assert quality.margin is None
    assert quality_line(quality) == ("2 of 2 greedy answers are equal to those of today's settings (attention changed)")


@pytest.mark.parametrize(
    ("candidate", "share", "place", "acceptable"),
    [("abcX", 0.75, 3, True), ("aXXX", 0.25, 1, False), ("ab", 0.5, 2, True), ("", 0.0, 0, False)],
)
def test_the_first_difference_decides(candidate: str, share: float, place: int, acceptable: bool) -> None:
    quality = compare_answers(["kv"], answers("abcd"), answers("abcd"), answers(candidate))
    assert (quality.share, quality.first_divergence, quality.acceptable) == (share, place, acceptable)
    assert quality.equal == 0


def test_what_today_does_not_repeat_is_not_held_against_the_candidate() -> None:
    quality = compare_answers(["kv"], answers("abcd"), answers("abXX"), answers("aXXX"))
    assert quality.control == 0.5
    assert quality.acceptable
    assert "today's settings repeats 50% of its own" in quality_line(quality)


def test_the_margin_is_that_of_todays_tokens_where_answers_part() -> None:
    today = [Answer(tuple("abcd"), (9.0, 0.5, 9.0, 9.0)), Answer(tuple("abcd"), (9.0, 9.0, 9.0, 0.1))]
    quality = compare_answers(["kv"], today, today, answers("aXXX", "abcX"))
    assert quality.margin == pytest.approx(0.3)
    line = quality_line(quality, "default")
    assert "differ first at token 3 of 32 (median), where the token of default led by 0.300 in log-probability" in line
    longer = compare_answers(["kv"], answers("ab", margin=1.0), answers("ab"), answers("abc"))
    assert (longer.first_divergence, longer.margin) == (2, None)


NAMED = frozenset({"flash", "kv"})


@define
class Engine:
    """Answers with letters that depend on what is loaded; ``drifts`` answers otherwise each time."""

    name: str = "engine"
    drifts: bool = False
    breaks: bool = False
    refuses: str | None = None
    pause: float = 0.0
    rest: Mapping[str, Value] = field(factory=lambda: {"flash": "on", "threads": 2})
    loaded: list[dict[str, Value]] = field(factory=list)
    asked: list[Request] = field(factory=list)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        self.asked.append(request)
        await asyncio.sleep(self.pause)
        if self.breaks and len(self.asked) > 3:
            raise BackendError("engine: broke off", kind="disconnected")
        values = {**self.rest, **self.loaded[-1]}
        other = len(self.asked) if self.drifts else values["flash"]
        for text in ("a", "", "b", str(other), "c"):
            yield Chunk(text, margin=0.25)

    async def apply(self, model: object, settings: Sequence[Setting]) -> None:
        values = {each.name: each.value for each in settings}
        if self.refuses in values:
            raise BackendError("engine: no", kind="load")
        self.loaded.append(values)

    async def read_back(self) -> Mapping[str, Value]:
        return {**self.rest, **self.loaded[-1]}

    async def roll_back(self) -> None: ...

    async def close(self) -> None: ...


class Naming(Engine):
    """One that says which of its settings change answers."""

    altering = NAMED


Run = Callable[[Coroutine[Any, Any, Guarded]], Guarded]


def guarded(engine: Engine, run: Run, *, budget: float = 100.0, **values: Value) -> Guarded:
    session = Session(engine, Workload("w", "m", (Task("t", "p", 2, 1),)), Circumstances(clock=_clock))
    settings = tuple(Setting(name, value, "flag", "r", "rule") for name, value in values.items())
    duel = Duel(engine, None, (Arm("default"), Arm("other", settings)), session, "s")  # type: ignore[arg-type]
    return run(guard(duel, "m", budget))


def _clock() -> float:
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        return 0.0


def test_settings_that_change_no_answer_cost_nothing(virtually: Run) -> None:
    engine = Naming()
    assert isinstance(engine, AltersAnswers)
    assert guarded(engine, virtually, threads=1) == Guarded()
    assert not engine.loaded


def test_what_reads_back_the_same_is_no_difference(virtually: Run) -> None:
    engine = Naming()
    assert guarded(engine, virtually, flash="on") == Guarded()
    assert len(engine.loaded) == 2


def test_answers_that_change_are_found(virtually: Run) -> None:
    engine = Naming()
    quality = guarded(engine, virtually, flash="off", threads=1).quality
    assert quality is not None
    assert quality.altered == ("flash",)
    assert (quality.prompts, quality.equal, quality.share, quality.control) == (len(PROMPTS), 0, 0.5, 1.0)
    assert quality.margin == 0.25
    assert all(each.sampling.logprobs and not each.cache_prompt for each in engine.asked if each.prompt in PROMPTS)


def test_equal_answers_need_no_second_look_at_todays(virtually: Run) -> None:
    engine = Naming()
    quality = guarded(engine, virtually, kv="q8").quality
    assert quality is not None
    assert quality.equal == len(PROMPTS)
    assert sum(each.prompt in PROMPTS for each in engine.asked) == 2 * len(PROMPTS)


def test_todays_own_drift_is_the_measure(virtually: Run) -> None:
    quality = guarded(Naming(drifts=True), virtually, kv="q8").quality
    assert quality is not None
    assert (quality.share, quality.control) == (0.5, 0.5)
    assert quality.acceptable


def test_a_backend_that_does_not_say_may_change_with_any_setting(virtually: Run) -> None:
    quality = guarded(Engine(), virtually, threads=1).quality
    assert quality is not None
    assert quality.altered == ("threads",)


def test_answers_that_break_off_are_a_problem_and_refused_settings_an_error(virtually: Run) -> None:
    assert guarded(Naming(breaks=True), virtually, flash="off") == Guarded(problem="engine: broke off")
    with pytest.raises(ArmRefused, match="engine: no"):
        guarded(Naming(refuses="flash"), virtually, flash="off")


def test_a_slow_engine_answers_fewer_prompts(virtually: Run) -> None:
    quality = guarded(Naming(pause=20.0), virtually, budget=100.0, flash="off").quality
    assert quality is not None
    assert quality.prompts == LEAST_PROMPTS


def test_answers_are_greedy_uncached_and_in_pieces() -> None:
    engine = Engine(loaded=[{}])
    assert asyncio.run(greedy_answers(engine, "m")) == [  # type: ignore[arg-type]
        Answer(("a", "b", "on", "c"), (0.25,) * 4)
    ] * len(PROMPTS)
    assert all(not each.cache_prompt and each.sampling.temperature == 0 for each in engine.asked)
    assert {each.sampling.max_tokens for each in engine.asked} == {TOKENS}

"""The request that the autopilot measures, cut to size for this model and machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.benchmark.metrics import tpot, ttft
from velollm_core.benchmark.pair import work_seconds
from velollm_core.benchmark.prompts import filler
from velollm_core.benchmark.session import CHARACTERS_A_TOKEN
from velollm_core.benchmark.workload import Task, Workload

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.benchmark.sample import Sample
    from velollm_core.benchmark.session import Session

BLOCK_SECONDS = 4.0
MOST_REPEATS = 5
LEAST_ANSWER = 8


@frozen
class Shape:
    """One request as its user sees it: tokens in, tokens out, and how many users ask at a time.

    An ``elastic`` one, which nobody asked for in so many tokens, may be cut where a machine is too slow for it.
    """

    prompt_tokens: int = 256
    answer_tokens: int = 48
    users: int = 1
    elastic: bool = False


def first_workload(model: str, shape: Shape) -> Workload:
    """The workload before anything is known of the model's tokenizer or speed."""
    return _workload(model, shape, shape.prompt_tokens * CHARACTERS_A_TOKEN, 1)


async def fitted_workload(session: Session, shape: Shape, *, limit: float | None = None) -> Workload:
    """The workload with prompts of the wanted length in this model's tokens, and blocks of a few seconds.

    Asks the running server three things; nothing of it is compared later. An elastic request that would take longer
    than ``limit`` seconds is cut.
    """
    model = session.workload.model
    each = await session.characters_a_token()
    session.workload = _workload(model, shape, shape.prompt_tokens * each, 1)
    samples = [sample for sample in await session.rehearse() if sample.timing.failure is None]
    if limit is not None and shape.elastic:
        shape = _cut(shape, samples, limit)
    times = [time for sample in samples if (time := _seconds(sample, shape))]
    repeats = round(BLOCK_SECONDS / max(times)) if times else 1
    return _workload(model, shape, shape.prompt_tokens * each, min(max(repeats, 1), MOST_REPEATS))


def cut_note(shape: Shape, workload: Workload) -> str | None:
    """What to say where requests became shorter than ``shape`` has them; None where they did not."""
    answer = workload.tasks[0].max_tokens
    if answer >= shape.answer_tokens:
        return None
    return (
        f"this machine is slow now: answers were cut from {shape.answer_tokens} to {answer} tokens, to fit more pairs"
    )


def _cut(shape: Shape, samples: Sequence[Sample], limit: float) -> Shape:
    waits = [wait for sample in samples if (wait := ttft(sample.timing))]
    steps = [step for sample in samples if (step := tpot(sample.timing))]
    if not waits or not steps:
        return shape
    tokens = 1 + int((limit - max(waits)) / max(steps))
    return evolve(shape, answer_tokens=min(max(tokens, LEAST_ANSWER), shape.answer_tokens))


def _seconds(sample: Sample, shape: Shape) -> float | None:
    return work_seconds(evolve(sample, max_tokens=min(sample.max_tokens, shape.answer_tokens)))


def _workload(model: str, shape: Shape, characters: float, repeats: int) -> Workload:
    task = Task("conversation", filler(round(characters)), shape.answer_tokens, repeats)
    return Workload("conversation", model, (task,), concurrency=shape.users)

"""The request that the autopilot measures, cut to size for this model and machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.benchmark.pair import work_seconds
from velollm_core.benchmark.prompts import filler
from velollm_core.benchmark.session import CHARACTERS_A_TOKEN
from velollm_core.benchmark.workload import Task, Workload

if TYPE_CHECKING:
    from velollm_core.benchmark.session import Session

BLOCK_SECONDS = 4.0
MOST_REPEATS = 5


@frozen
class Shape:
    """One request as its user sees it: tokens in, tokens out, and how many users ask at a time."""

    prompt_tokens: int = 256
    answer_tokens: int = 48
    users: int = 1


def first_workload(model: str, shape: Shape) -> Workload:
    """The workload before anything is known of the model's tokenizer or speed."""
    return _workload(model, shape, shape.prompt_tokens * CHARACTERS_A_TOKEN, 1)


async def fitted_workload(session: Session, shape: Shape) -> Workload:
    """The workload with prompts of the wanted length in this model's tokens, and blocks of a few seconds.

    Asks the running server three things; nothing of it is compared later.
    """
    model = session.workload.model
    characters = shape.prompt_tokens * await session.characters_a_token()
    session.workload = _workload(model, shape, characters, 1)
    samples = await session.rehearse()
    times = [time for sample in samples if sample.timing.failure is None and (time := work_seconds(sample))]
    repeats = round(BLOCK_SECONDS / max(times)) if times else 1
    return _workload(model, shape, characters, min(max(repeats, 1), MOST_REPEATS))


def _workload(model: str, shape: Shape, characters: float, repeats: int) -> Workload:
    task = Task("conversation", filler(round(characters)), shape.answer_tokens, repeats)
    return Workload("conversation", model, (task,), concurrency=shape.users)

"""How many tokens a request must be able to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from velollm_core.benchmark.workload import Workload
    from velollm_core.models.spec import ModelSpec

STEP = 256
"""llama.cpp pads every cache to whole steps."""

TEMPLATE_TOKENS = 64
"""What a chat template and a unique beginning add to a prompt, at most."""

CONVERSATION = 8192
"""Enough to work with where nobody says more, small enough to start anywhere."""


@frozen
class Need:
    """``tokens`` for one request, whole steps, and why; ``least`` is what the workload itself cannot do without."""

    tokens: int
    least: int
    reason: str


def need(model: ModelSpec, workload: Workload) -> Need:
    """What ``workload`` asks for, else room for a conversation; never more than the model was trained for, unasked."""
    if workload.context is not None:
        tokens = steps(workload.context)
        return Need(tokens, tokens, f"{workload.context} tokens a request were asked for")
    longest = max((task_tokens(len(task.prompt.encode()), task.max_tokens) for task in workload.tasks), default=0)
    trained = model.context_length or CONVERSATION
    room = min(CONVERSATION, trained)
    least = steps(max(longest, STEP))
    if longest > room:
        return Need(least, least, f"the workload's longest request takes up to {longest} tokens")
    why = f"the trained context of {trained}" if trained <= CONVERSATION else f"room for a conversation ({room})"
    also = f"; the workload's longest request takes up to {longest}" if longest else ""
    return Need(steps(room), least, f"{why}{also}")


def task_tokens(prompt_bytes: int, answer: int) -> int:
    """The most tokens that a task can take: a token is at least a byte."""
    return prompt_bytes + TEMPLATE_TOKENS + answer


def steps(tokens: int) -> int:
    """The next whole step."""
    return -(-tokens // STEP) * STEP

"""What a server's process and its engine's say to each other. Sequences go by a number of the server's."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.streams import TokenBatch
from velollm_core.errors import VeloError

Counter = Literal["stats", "usage"]


@frozen
class Add:
    """Run a sequence, the child of ``parent`` if that still runs.

    With ``leader`` in the engine, or ``taken``, it goes in however many wait.
    """

    number: int
    id: str
    token_ids: list[int]
    sampling: SamplingParams
    stop_ids: frozenset[int]
    priority: int
    parent: int | None
    cache_salt: str
    use_cache: bool
    leader: int | None
    taken: bool


@frozen
class Abort:
    """End a sequence; nobody waits for it any more."""

    number: int


@frozen
class Ask:
    """Tell a counter, in an `Answer` of the same ``number``."""

    number: int
    what: Counter


Request = Add | Abort | Ask


@frozen
class Ready:
    """The engine is loaded; ``facts`` are what its opener says of it."""

    facts: object


@frozen
class Failed:
    """There is no engine, or none any more."""

    reason: VeloError


@frozen
class Refused:
    """What was asked under ``number`` is not done: the sequence not taken, the counter not told."""

    number: int
    reason: VeloError


@frozen
class Answer:
    """A counter that was asked for."""

    number: int
    value: object


@frozen
class More:
    """Several tokens of one sequence, or its last; ``num_cached`` of its prompt came from the prefix cache."""

    number: int
    batch: TokenBatch
    num_cached: int


@frozen
class News:
    """What a step gave: to each of ``numbers`` one of ``tokens``, as nearly always, and what is not so plain."""

    numbers: list[int]
    tokens: list[int]
    more: list[More]


Reply = Ready | Failed | Refused | Answer | News

"""What is asked of a backend while it is measured or planned for."""

from __future__ import annotations

from attrs import frozen

from velollm_core.benchmark.load import Load


@frozen
class Task:
    """One kind of request: ``prompt`` text, ``max_tokens`` to produce, sent ``repeats`` times."""

    name: str
    prompt: str
    max_tokens: int
    repeats: int


@frozen
class Workload:
    """A named list of tasks for one model.

    ``context`` is the tokens that one request may use (prompt and answer), None for what the tasks need;
    ``concurrency`` the requests at a time. With ``warm_cache`` prompts may hit the prefix cache and are reported as
    such; otherwise each prompt is unique from its first token. ``seed`` orders and varies the prompts. With a ``load``
    that is what is measured: ``concurrency`` are its users, and ``tasks`` only warm up.
    """

    name: str
    model: str
    tasks: tuple[Task, ...] = ()
    concurrency: int = 1
    context: int | None = None
    warm_cache: bool = False
    seed: int = 0
    load: Load | None = None

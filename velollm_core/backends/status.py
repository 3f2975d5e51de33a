"""Whether a backend answers, and with what."""

from __future__ import annotations

from attrs import frozen


@frozen
class Status:
    """One look at a backend. ``reason`` says in one line what it lacks where it is not ``reachable``.

    ``location`` is its URL, the path of its binary, or ``embedded``. ``reachable`` means that it can be used now: a
    server that answers, or a binary or library that VeloLLM can start by itself; ``running`` tells the two apart.
    """

    reachable: bool
    version: str | None = None
    models: tuple[str, ...] = ()
    reason: str | None = None
    location: str | None = None
    running: bool = False

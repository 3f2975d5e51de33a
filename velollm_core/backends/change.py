"""A change to a server that outlasts the run that made it."""

from __future__ import annotations

from attrs import frozen


@frozen
class Change:
    """``key`` names the change within its backend; ``what`` says it in a few words, ``where`` it is in force.

    ``restarts`` tells that taking it back restarts the server, so that requests in flight fail.
    """

    key: str
    what: str
    where: str
    restarts: bool = False

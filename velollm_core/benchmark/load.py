"""A load: what many users ask over some time, and what they would put up with."""

from __future__ import annotations

from attrs import frozen

from velollm_core.backends.request import Message
from velollm_core.benchmark.arrivals import Arrivals
from velollm_core.benchmark.lengths import Lengths

PROMPT, ANSWER = Lengths("fixed", 256), Lengths("fixed", 64)


@frozen
class Slo:
    """What a user would put up with, in seconds; None asks for nothing. Goodput counts requests that keep to all."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None


@frozen
class Entry:
    """One recorded request: a prompt, or messages; ``max_tokens`` None leaves the answer's length to the load."""

    prompt: str = ""
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None


@frozen
class Load:
    """Requests for ``seconds``, or until ``requests`` were sent, whichever comes first; what runs then is waited for.

    With ``arrivals`` the loop is open: requests are sent at their times. Without, it is closed: each of the workload's
    users waits for an answer, thinks for ``think`` seconds, and asks again. Prompts are made of ``prompt`` tokens, or
    are those of ``entries`` in turn. With ``turns`` above 1 each user holds conversations of that many turns, every
    turn beginning with all that was said before; the prefix cache is then part of what is measured. The first
    ``shared`` tokens are the same for all requests of a run, as a system prompt is.
    """

    seconds: float = 60.0
    requests: int | None = None
    arrivals: Arrivals | None = None
    think: float = 0.0
    prompt: Lengths = PROMPT
    answer: Lengths = ANSWER
    entries: tuple[Entry, ...] = ()
    turns: int = 1
    shared: int = 0
    slo: Slo | None = None

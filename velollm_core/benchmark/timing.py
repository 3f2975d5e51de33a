"""When the pieces of one answer came, on one monotonic clock."""

from __future__ import annotations

from attrs import frozen

from velollm_core.backends.request import Usage

UNCOUNTED = Usage()


@frozen
class Failure:
    """Why a request gave no measurement; ``kind`` groups it: unreachable, timeout, empty, miscounted, http_429, …"""

    kind: str
    message: str


@frozen
class RequestTiming:
    """One request. Times are seconds since the run began; what never happened is None or empty.

    ``intended`` is when the workload wanted it sent, ``sent`` when it was. ``arrivals`` are the chunks that carried
    text or reasoning; ``chunk_tokens`` their tokens where the server counted every one. ``first_output`` is the first
    chunk with text that is not reasoning.
    """

    intended: float
    sent: float
    ended: float
    arrivals: tuple[float, ...] = ()
    chunk_tokens: tuple[int, ...] | None = None
    first_output: float | None = None
    usage: Usage = UNCOUNTED
    finish_reason: str | None = None
    failure: Failure | None = None

    @property
    def first(self) -> float | None:
        """When the first piece of the answer came."""
        return self.arrivals[0] if self.arrivals else None

    @property
    def last(self) -> float | None:
        """When the last piece of the answer came."""
        return self.arrivals[-1] if self.arrivals else None

    @property
    def completion_tokens(self) -> int | None:
        """Tokens produced, as the server counted them; None where it did not."""
        if self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return sum(self.chunk_tokens) if self.chunk_tokens is not None and self.failure is None else None

    @property
    def uncached_tokens(self) -> int | None:
        """Prompt tokens that had to be computed; None where the server does not count them, or counts more cached."""
        if self.usage.prompt_tokens is None:
            return None
        computed = self.usage.prompt_tokens - (self.usage.cached_tokens or 0)
        return computed if computed >= 0 else None

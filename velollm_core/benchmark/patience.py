"""When a backend is given up, because more requests would only cost time."""

from __future__ import annotations

from attrs import define

from velollm_core.benchmark.timing import Failure

IN_A_ROW = 3
# Nobody listens, nothing comes, the engine is gone, or the answer will be no every time.
FINAL = frozenset({"unreachable", "timeout", "crash", "http_401", "http_403", "http_404"})
MANY = 20
SECONDS = 5.0


@define
class Patience:
    """Gives up after `IN_A_ROW` failures, one after the other.

    Under a load (``patient``) only those of a `FINAL` kind are so few: a server that turns some of many users away, or
    starts again, is what was to be measured. Others end it after `MANY`, if also `SECONDS` passed without an answer.
    """

    patient: bool = False
    failures: int = 0
    final: int = 0
    last: Failure | None = None
    _answered: float = 0.0

    @property
    def reason(self) -> str:
        """What happened at last, in words."""
        kind, message = (self.last.kind, self.last.message) if self.last else ("nothing", "nothing failed")
        return f"the last {self.failures} requests failed ({kind}: {message})"

    def see(self, failure: Failure | None, now: float) -> None:
        """One request is over; ``now`` in seconds."""
        if failure is None:
            self.failures = self.final = 0
            self._answered = now
            return
        if not self.failures and not self._answered:
            self._answered = now
        self.failures += 1
        self.final = self.final + 1 if failure.kind in FINAL else 0
        self.last = failure

    def is_over(self, now: float) -> bool:
        """Whether to give up."""
        if not self.patient:
            return self.failures >= IN_A_ROW
        return self.final >= IN_A_ROW or (self.failures >= MANY and now - self._answered > SECONDS)

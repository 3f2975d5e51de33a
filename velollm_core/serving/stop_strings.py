"""Ending an answer at a string that may come in pieces."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class StopStrings:
    """Lets text through up to the first of ``stops``, then ``stop``; what may be the beginning of one is held back."""

    stops: tuple[str, ...]
    found: bool = field(init=False, default=False)
    stop: str | None = field(init=False, default=None)
    _held: str = field(init=False, default="")

    def feed(self, text: str) -> str:
        """What may be shown after ``text`` has come; all of it up to the stop string once one is found."""
        if not self.stops or self.found:
            return "" if self.found else text
        self._held += text
        places = [(place, stop) for stop in self.stops if (place := self._held.find(stop)) >= 0]
        if places:
            place, self.stop = min(places)
            self.found = True
            shown, self._held = self._held[:place], ""
            return shown
        keep = max(self._overlap(stop) for stop in self.stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        shown, self._held = self._held, ""
        return shown

    def _overlap(self, stop: str) -> int:
        """How much of the end could be the beginning of ``stop``."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)

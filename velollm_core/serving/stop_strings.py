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
        known = len(self._held)
        self._held += text
        # One that ends in what was there before has been overlooked.
        starts = ((stop, max(0, known - len(stop) + 1)) for stop in self.stops)
        places = [(place, stop) for stop, start in starts if (place := self._held.find(stop, start)) >= 0]
        if places:
            place, self.stop = min(places)
            self.found = True
            shown, self._held = self._held[:place], ""
            return shown
        return self._pass_on()

    def overlook(self, text: str) -> str:
        """What may be shown after ``text``, in which no stop string may end yet; one that begins in it may later."""
        if not self.stops:
            return text
        self._held += text
        return self._pass_on()

    def finish(self) -> str:
        """What was held back for a stop string that did not come."""
        shown, self._held = self._held, ""
        return shown

    def _pass_on(self) -> str:
        keep = max(self._overlap(stop) for stop in self.stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def _overlap(self, stop: str) -> int:
        """How much of the end could be the beginning of ``stop``."""
        most = min(len(stop) - 1, len(self._held))
        return next((size for size in range(most, 0, -1) if self._held.endswith(stop[:size])), 0)

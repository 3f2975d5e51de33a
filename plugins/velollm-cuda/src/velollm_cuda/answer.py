"""The text of one answer while it grows: decoded piece by piece, up to a stop string."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from velollm_cuda.detokenize import Detokenizer


@define(eq=False)
class AnswerText:
    """``found`` is the stop string it met, ``text`` all before it, ``count`` the tokens by then.

    One that is complete within the first ``min_tokens`` tokens does not count.
    """

    detokenizer: Detokenizer
    stops: tuple[str, ...] = ()
    min_tokens: int = 0
    found: str | None = field(init=False, default=None)
    text: str = field(init=False, default="")
    count: int = field(init=False, default=0)
    _said: int = field(init=False, default=0)

    def feed(self, token_ids: Iterable[int]) -> str:
        """What may be said after ``token_ids``: the beginning of a stop string waits until it is another's.

        What comes after a stop string is not taken in.
        """
        for token in token_ids:
            if self.found is not None:
                break
            self.count += 1
            self._add(self.detokenizer.feed((token,)))
        return self._say(len(self.text) - self._held())

    def finish(self) -> str:
        """The rest: there are no more tokens."""
        if self.found is None:
            self._add(self.detokenizer.finish())
        return self._say(len(self.text))

    def _add(self, piece: str) -> None:
        """Only what the new piece completes is looked at."""
        known = len(self.text)
        self.text += piece
        if self.count <= self.min_tokens:
            return
        places = [(self.text.find(stop, max(0, known - len(stop) + 1)), stop) for stop in self.stops]
        at, stop = min((place for place in places if place[0] >= 0), default=(-1, ""))
        if at >= 0:
            self.text, self.found = self.text[:at], stop

    def _held(self) -> int:
        """Letters at the end that could be the beginning of a stop string."""
        if self.found is not None:
            return 0
        ends = (
            length
            for stop in self.stops
            for length in range(min(len(stop) - 1, len(self.text)), 0, -1)
            if self.text.endswith(stop[:length])
        )
        return max(ends, default=0)

    def _say(self, end: int) -> str:
        piece = self.text[self._said : end]
        self._said = max(self._said, end)
        return piece

"""Text out of tokens as they come, without decoding everything again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

UNFINISHED = "\ufffd"
# A character has at most four bytes: when five tokens have not made one, all but the last three bytes are garbage.
MOST_TOKENS = 4
MOST_BYTES = 3
LONGEST_WINDOW = 64


@define(eq=False)
class Detokenizer:
    """Decodes a growing list of tokens; its pieces, joined, are the text of all of them.

    A token's text depends on the token before it (spaces, characters of several tokens), so that one is decoded again
    with it. Bytes that are no whole character yet are held back until they are, or until `finish`.
    """

    decode: Callable[[Sequence[int]], str]
    _window: list[int] = field(init=False, factory=list)
    _settled: int = field(init=False, default=0)
    _said: int = field(init=False, default=0)

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that ``token_ids`` add."""
        return "".join([self._add(token) for token in token_ids])

    def finish(self) -> str:
        """What was held back: bytes that no token completed, as the replacement character."""
        if len(self._window) == self._settled:
            return ""
        rest = self.decode(self._window)[self._said :]
        self._settle()
        return rest

    def _add(self, token: int) -> str:
        self._window.append(token)
        text = self.decode(self._window)
        whole = text.rstrip(UNFINISHED)
        trailing = len(text) - len(whole)
        if trailing > MOST_BYTES and len(self._window) - self._settled > MOST_TOKENS:
            whole = text[:-MOST_BYTES]
        piece = whole[self._said :]
        self._said = max(self._said, len(whole))
        if not trailing:
            self._settle()
        elif len(self._window) > LONGEST_WINDOW:
            piece += text[self._said :]
            self._settle()
        return piece

    def _settle(self) -> None:
        """All is said; the tokens since the last time stay as the context of the next.

        Where they have no text themselves (special tokens), what was before them stays as well.
        """
        fresh = self._window[self._settled :]
        text = self.decode(fresh)
        if text or len(self._window) > LONGEST_WINDOW:
            self._window, self._said = fresh, len(text)
        self._settled = len(self._window)

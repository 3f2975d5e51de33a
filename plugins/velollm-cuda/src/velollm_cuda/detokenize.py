"""Text out of tokens as they come, without decoding everything again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define, field

UNFINISHED = "\ufffd"
# A character has at most four bytes: when five tokens have not made one, all but the last three bytes are garbage.
MOST_TOKENS = 4
MOST_BYTES = 3
# Decoding a few tokens costs little more than decoding one; to forget them costs a second call.
WINDOW = 8
LONGEST_WINDOW = 64


@define(eq=False)
class Detokenizer:
    """Decodes a growing list of tokens; its pieces, joined, are the text of all of them.

    A token's text depends on the tokens before it (spaces, characters of several tokens), so the last few are decoded
    again with it. Bytes that are no whole character yet are held back until they are, or until `finish`.

    ``alone`` is for tokenizers with which a token of whole characters says the same after any others that are: each
    token's own text.
    """

    decode: Callable[[Sequence[int]], str]
    alone: TokenTexts | None = None
    _window: list[int] = field(init=False, factory=list)
    _settled: int = field(init=False, default=0)
    _said: int = field(init=False, default=0)
    _begun: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._begun = self.alone is not None and not self.alone.context

    def feed(self, token_ids: Iterable[int]) -> str:
        """The text that ``token_ids`` add."""
        said = ""
        for token in token_ids:
            said += self._add(token)
        return said

    def finish(self) -> str:
        """What was held back: bytes that no token completed, as the replacement character."""
        if len(self._window) == self._settled:
            return ""
        text = self.decode(self._window)
        rest = text[self._said :]
        self._settle(text)
        return rest

    def _add(self, token: int) -> str:
        if self._begun and self.alone is not None and len(self._window) == self._settled:
            text = self.alone[token]
            if not text.endswith(UNFINISHED):
                return text
        self._window.append(token)
        text = self.decode(self._window)
        if not text.endswith(UNFINISHED):
            piece = text[self._said :]
            self._settle(text)
            return piece
        whole = text.rstrip(UNFINISHED)
        if len(text) - len(whole) > MOST_BYTES and len(self._window) - self._settled > MOST_TOKENS:
            whole = text[:-MOST_BYTES]
        piece = whole[self._said :]
        self._said = max(self._said, len(whole))
        if len(self._window) - self._settled > LONGEST_WINDOW:
            piece += text[self._said :]
            self._settle(text)
        return piece

    def _settle(self, text: str) -> None:
        """All of ``text`` is said. Of a window grown long, only the tokens since the last time stay as context.

        Where they have no text themselves (special tokens), what was before them stays as well.
        """
        self._said = len(text)
        if self.alone is not None and text:
            self._window, self._said, self._begun = [*self.alone.context], self.alone.said, True
        elif len(self._window) > WINDOW:
            fresh = self._window[self._settled :]
            alone = self.decode(fresh)
            if alone or len(self._window) > LONGEST_WINDOW:
                self._window, self._said = fresh, len(alone)
        self._settled = len(self._window)


class TokenTexts(dict[int, str]):
    """The text of each token behind other text, decoded when first asked for.

    ``context`` stands for that other text where a token says something else at the beginning.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], context: tuple[int, ...] = ()) -> None:
        super().__init__()
        self._decode = decode
        self.context = context
        self.said = len(decode(context)) if context else 0

    def __missing__(self, token: int) -> str:
        text = self[token] = self._decode((*self.context, token))[self.said :]
        return text

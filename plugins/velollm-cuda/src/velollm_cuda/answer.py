"""The text of one answer while it grows: decoded piece by piece, up to a stop string."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field

from velollm_core.serving.stop_strings import StopStrings
from velollm_cuda.detokenize import Detokenizer


@define(eq=False)
class AnswerText:
    """``found`` is the stop string it met, ``text`` what may be said of it so far, ``count`` its tokens.

    A stop string counts where it ends in a token after the first ``min_tokens``.
    """

    detokenizer: Detokenizer
    stops: tuple[str, ...] = ()
    min_tokens: int = 0
    text: str = field(init=False, default="")
    count: int = field(init=False, default=0)
    _strings: StopStrings = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._strings = StopStrings(self.stops)

    @property
    def found(self) -> str | None:
        """The stop string that ended the answer, None without one."""
        return self._strings.stop

    def feed(self, token_ids: Iterable[int]) -> str:
        """What may be said after ``token_ids``; what comes after a stop string is not taken in."""
        said = ""
        for token in token_ids:
            if self._strings.found:
                break
            self.count += 1
            piece = self.detokenizer.feed((token,))
            said += self._strings.feed(piece) if self.count > self.min_tokens else self._strings.overlook(piece)
        self.text += said
        return said

    def finish(self) -> str:
        """The rest: there are no more tokens."""
        said = "" if self._strings.found else self._strings.feed(self.detokenizer.finish()) + self._strings.finish()
        self.text += said
        return said

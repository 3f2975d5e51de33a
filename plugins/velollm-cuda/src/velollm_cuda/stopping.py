"""Stop strings: finding them while an answer grows."""

from __future__ import annotations

from attrs import define, field

from velollm_core.engine.sequence import Sequence
from velollm_cuda.detokenize import Detokenizer
from velollm_cuda.tokens import Tokenizer


@define(eq=False)
class StopWatch:
    """Reads one sequence. ``found`` is the stop string it met, ``text`` all before it, ``count`` the tokens by then.

    One that is complete within the first ``min_tokens`` tokens does not count.
    """

    stops: tuple[str, ...]
    min_tokens: int
    tokenizer: Tokenizer
    found: str | None = field(init=False, default=None)
    text: str = field(init=False, default="")
    count: int = field(init=False, default=0)
    _detokenizer: Detokenizer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._detokenizer = self.tokenizer.detokenizer()

    def reads(self, sequence: Sequence) -> bool:
        """Take in the tokens that are new; whether a stop string is there now."""
        start = sequence.num_prompt_tokens
        for token in sequence.token_ids[start + self.count :]:
            self.count += 1
            if self._says(self._detokenizer.feed((token,))):
                return True
        return False

    def _says(self, piece: str) -> bool:
        """Only what the new piece completes is looked at."""
        known = len(self.text)
        self.text += piece
        if self.count <= self.min_tokens:
            return False
        places = [(self.text.find(stop, max(0, known - len(stop) + 1)), stop) for stop in self.stops]
        at, stop = min((place for place in places if place[0] >= 0), default=(-1, ""))
        if at < 0:
            return False
        self.text, self.found = self.text[:at], stop
        return True

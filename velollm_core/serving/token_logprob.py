"""The log probability of one token of an answer, as OpenAI's clients read it."""

from __future__ import annotations

from attrs import frozen

from velollm_core.engine.sequence import Ranking
from velollm_core.serving.text_model import TextModel

UNFINISHED = "\ufffd"
Json = dict[str, object]


@frozen
class TokenLogprob:
    """``value`` is the natural logarithm of the token's probability, ``text`` what it says by itself.

    ``alternatives`` are the likeliest tokens in its place, itself perhaps among them, likeliest first.
    """

    text: str
    value: float
    alternatives: tuple[TokenLogprob, ...] = ()

    @classmethod
    def of(cls, token: int, value: float, model: TextModel, ranking: Ranking = ()) -> TokenLogprob:
        """Read ``token`` alone: a piece of a character has the replacement character for its text."""
        detokenizer = model.detokenizer()
        others = tuple(cls.of(*each, model) for each in ranking)
        return cls(detokenizer.feed((token,)) + detokenizer.finish(), value, others)

    @property
    def in_chat(self) -> Json:
        """An entry of a chat's ``logprobs.content``; no bytes where the text does not have the token's own."""
        return {**self.plain, "top_logprobs": [each.plain for each in self.alternatives]}

    @property
    def plain(self) -> Json:
        """The entry without its alternatives."""
        spelt = None if UNFINISHED in self.text else list(self.text.encode())
        return {"token": self.text, "logprob": self.value, "bytes": spelt}


def in_completion(entries: tuple[TokenLogprob, ...], offset: int, *, ranked: bool) -> Json:
    """A completion's ``logprobs``, with the alternatives where ``ranked``; the texts before are ``offset`` long.

    Tokens of equal text, pieces of different characters, share an entry: the likeliest is in it.
    """
    offsets = []
    for each in entries:
        offsets.append(offset)
        offset += len(each.text)
    return {
        "tokens": [each.text for each in entries],
        "token_logprobs": [each.value for each in entries],
        "top_logprobs": [_by_text(each.alternatives) for each in entries] if ranked else None,
        "text_offset": offsets,
    }


def _by_text(entries: tuple[TokenLogprob, ...]) -> dict[str, float]:
    return {each.text: each.value for each in reversed(entries)}

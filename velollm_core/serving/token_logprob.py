"""The log probability of one token of an answer, as OpenAI's clients read it."""

from __future__ import annotations

from attrs import frozen

from velollm_core.serving.text_model import TextModel

UNFINISHED = "\ufffd"
Json = dict[str, object]


@frozen
class TokenLogprob:
    """``value`` is the natural logarithm of the token's probability, ``text`` what it says by itself."""

    text: str
    value: float

    @classmethod
    def of(cls, token: int, value: float, model: TextModel) -> TokenLogprob:
        """Read ``token`` alone: a piece of a character has the replacement character for its text."""
        detokenizer = model.detokenizer()
        return cls(detokenizer.feed((token,)) + detokenizer.finish(), value)

    @property
    def in_chat(self) -> Json:
        """An entry of a chat's ``logprobs.content``; no bytes where the text does not have the token's own."""
        spelt = None if UNFINISHED in self.text else list(self.text.encode())
        return {"token": self.text, "logprob": self.value, "bytes": spelt, "top_logprobs": []}


def in_completion(entries: tuple[TokenLogprob, ...], offset: int) -> Json:
    """A completion's ``logprobs``; the texts before these are ``offset`` characters long."""
    offsets = []
    for each in entries:
        offsets.append(offset)
        offset += len(each.text)
    return {
        "tokens": [each.text for each in entries],
        "token_logprobs": [each.value for each in entries],
        "top_logprobs": None,
        "text_offset": offsets,
    }

"""The JSON of answers, whole and in pieces, as OpenAI's clients read it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from attrs import define, field

from velollm_core.serving.answers import Piece
from velollm_core.serving.token_logprob import TokenLogprob, in_completion

Json = dict[str, object]


@define(eq=False)
class Documents:
    """The documents of one request, all under the same id; ``created`` in seconds since 1970."""

    id: str
    model: str
    created: int
    is_chat: bool
    prompt_tokens: int
    with_logprobs: bool = False
    ranked: bool = False
    _counts: dict[int, tuple[int, int]] = field(init=False, factory=dict)
    _offsets: dict[int, int] = field(init=False, factory=dict)

    def opening(self, choices: int) -> list[Json]:
        """What a stream begins with: each answer's role in a chat, nothing else."""
        if not self.is_chat:
            return []
        return [self._chunk(index, {"role": "assistant", "content": ""}, None) for index in range(choices)]

    def chunk(self, piece: Piece) -> Json:
        """A piece of an answer."""
        self._count(piece)
        delta: Json = {"content": piece.text} if piece.text else {}
        logprobs = self._logprobs(piece.index, piece.logprobs)
        return self._chunk(piece.index, delta, piece.finish_reason, piece.text, logprobs)

    def closing(self) -> Json:
        """What a stream ends with where usage was asked for: an event without choices."""
        return self._document(self._kind("chunk"), []) | {"usage": self.usage()}

    def whole(self, pieces: Sequence[Piece]) -> Json:
        """All answers at once."""
        answers: dict[int, list[Piece]] = {}
        for piece in pieces:
            self._count(piece)
            answers.setdefault(piece.index, []).append(piece)
        choices = [self._answer(index, answers[index]) for index in sorted(answers)]
        return self._document(self._kind("whole"), choices) | {"usage": self.usage()}

    def usage(self) -> Json:
        """Tokens of the prompt and of all answers that have ended."""
        produced = sum(tokens for tokens, _ in self._counts.values())
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": produced,
            "total_tokens": self.prompt_tokens + produced,
            "prompt_tokens_details": {"cached_tokens": min((hit for _, hit in self._counts.values()), default=0)},
        }

    def _count(self, piece: Piece) -> None:
        if piece.finish_reason:
            self._counts[piece.index] = (piece.num_tokens, piece.cached_tokens)

    def _kind(self, form: str) -> str:
        if self.is_chat:
            return "chat.completion.chunk" if form == "chunk" else "chat.completion"
        return "text_completion"

    def _logprobs(self, index: int, entries: tuple[TokenLogprob, ...]) -> Json | None:
        if not self.with_logprobs:
            return None
        if self.is_chat:
            return {"content": [each.in_chat for each in entries], "refusal": None}
        begin = self._offsets.get(index, 0)
        self._offsets[index] = begin + sum(len(each.text) for each in entries)
        return in_completion(entries, begin, ranked=self.ranked)

    def _chunk(self, index: int, delta: Json, reason: str | None, text: str = "", logprobs: Json | None = None) -> Json:
        body: Json = {"delta": delta} if self.is_chat else {"text": text}
        choice = {"index": index, **body, "finish_reason": reason, "logprobs": logprobs}
        return self._document(self._kind("chunk"), [choice])

    def _answer(self, index: int, pieces: Sequence[Piece]) -> Json:
        text = "".join([piece.text for piece in pieces])
        logprobs = self._logprobs(index, tuple(chain.from_iterable(piece.logprobs for piece in pieces)))
        return self._choice(index, text, pieces[-1].finish_reason, logprobs)

    def _choice(self, index: int, text: str, reason: str | None, logprobs: Json | None) -> Json:
        message = {"role": "assistant", "content": text}
        body: Json = {"message": message} if self.is_chat else {"text": text}
        return {"index": index, **body, "finish_reason": reason, "logprobs": logprobs}

    def _document(self, kind: str, choices: list[Json]) -> Json:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
        }  # fmt: skip

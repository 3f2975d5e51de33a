"""The events of a stream, as bytes."""

from __future__ import annotations

import json

from attrs import define, evolve, field

from velollm_core.serving.answers import Piece
from velollm_core.serving.documents import Documents, Json

DONE = b"data: [DONE]\n\n"
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
SAMPLE = "text"


def event(document: Json) -> bytes:
    """One event with ``document`` for its data."""
    return f"data: {ENCODER.encode(document)}\n\n".encode()


@define(eq=False)
class Events:
    """What one request's stream consists of, around its ``documents``.

    From one event to the next of an answer mostly nothing but the text differs: what is around it is made once.
    """

    documents: Documents
    _frames: dict[int, tuple[str, str]] = field(init=False, factory=dict)

    def opening(self, choices: int) -> bytes:
        """What comes before the first piece."""
        return b"".join([event(document) for document in self.documents.opening(choices)])

    def of(self, piece: Piece) -> bytes:
        """A piece of an answer."""
        if piece.finish_reason or self.documents.with_logprobs or not piece.text:
            return event(self.documents.chunk(piece))
        head, tail = self._frames.get(piece.index) or self._frame(piece)
        return (head + ENCODER.encode(piece.text) + tail).encode()

    def closing(self) -> bytes:
        """What comes after the last piece where usage was asked for."""
        return event(self.documents.closing())

    def _frame(self, piece: Piece) -> tuple[str, str]:
        """What stands around the text of an answer's events. Names come before it, so that the last place counts."""
        whole = event(self.documents.chunk(evolve(piece, text=SAMPLE))).decode()
        head, _, tail = whole.rpartition(ENCODER.encode(SAMPLE))
        self._frames[piece.index] = head, tail
        return head, tail

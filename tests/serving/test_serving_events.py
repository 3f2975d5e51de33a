"""A stream's events: bytes that are those of their documents, however they were made."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from velollm_core.serving.answers import Piece
from velollm_core.serving.documents import Documents
from velollm_core.serving.events import Events
from velollm_core.serving.token_logprob import TokenLogprob

# Names and texts that look like the JSON around them are the ones to fear.
TEXT = st.one_of(
    st.text(max_size=8), st.sampled_from(["text", '"text"', '"text":"text"', "\u2028", "\x00", "\\", '{"'])
)
LOGPROBS = st.lists(st.builds(TokenLogprob, TEXT, st.floats(-9, 0)), max_size=2).map(tuple)
PIECES = st.lists(
    st.builds(Piece, st.integers(0, 2), TEXT, st.sampled_from([None, None, None, "stop"]), logprobs=LOGPROBS),
    max_size=9,
)


def documents(name: str, *, is_chat: bool, with_logprobs: bool) -> Documents:
    return Documents(f"cmpl-{name}", name, 1795882432, is_chat, 3, with_logprobs)


def spelt(document: Any) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


@given(TEXT, PIECES, st.booleans(), st.booleans())
def test_events_are_their_documents_byte_by_byte(
    name: str, pieces: list[Piece], is_chat: bool, with_logprobs: bool
) -> None:
    events = Events(documents(name, is_chat=is_chat, with_logprobs=with_logprobs))
    own = documents(name, is_chat=is_chat, with_logprobs=with_logprobs)
    assert events.opening(3) == b"".join(spelt(each) for each in own.opening(3))
    for piece in pieces:
        assert events.of(piece) == spelt(own.chunk(piece))
    assert events.closing() == spelt(own.closing())


def test_an_event_of_text_is_made_without_a_document() -> None:
    made = documents("m", is_chat=False, with_logprobs=False)
    events = Events(made)
    events.of(Piece(0, "a"))
    made.id = "another"
    assert b"cmpl-m" in events.of(Piece(0, "b"))
    assert b"another" in events.of(Piece(1, "c"))
    assert b"another" in events.of(Piece(0, "d", "stop"))

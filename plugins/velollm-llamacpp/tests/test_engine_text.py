"""Text of the engine's answers, as its server reads it for stop strings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from velollm_llamacpp.engine.text import TextReader

from velollm_core.serving.stop_strings import StopStrings

LETTERS = "ae\u0301🎉👩\u200d💻🇩🇪한 \u2028"


@given(st.text(LETTERS), st.text(LETTERS, min_size=1, max_size=3), st.lists(st.integers(1, 5)))
def test_characters_in_several_tokens_stop_an_answer_like_any_others(text: str, stop: str, sizes: list[int]) -> None:
    """However the bytes are cut: the text before the first stop string, and not one token more is read."""
    rest, pieces = text.encode(), list[bytes]()
    while rest:
        size = sizes.pop() if sizes else 1
        pieces.append(rest[:size])
        rest = rest[size:]
    reader, stops, shown, read = TextReader(pieces), StopStrings((stop,)), "", 0
    while read < len(pieces) and not stops.found:
        shown += stops.feed(reader.feed((read,)))
        read += 1
    if stops.found:
        assert shown == text[: text.index(stop)]
        assert stop not in b"".join(pieces[: read - 1]).decode(errors="ignore")
    else:
        assert stop not in text
        assert shown + stops.feed(reader.finish()) + stops.finish() == text

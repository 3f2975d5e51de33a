"""How a stream's bytes become events: the protocol that `EventStream` and `JsonLines` share."""

from __future__ import annotations

from typing import Protocol


class Framing(Protocol):
    """An incremental parser: bytes in any cut go in, whole events (JSON texts, still bytes) come out.

    ``ended`` turns true at the stream's own end marker. ``has_end_marker`` False leaves it to the events: the stream
    is whole once a chunk carried a ``finish_reason``.
    """

    ended: bool
    has_end_marker: bool

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes, in order; nothing after the end marker."""

    def flush(self) -> list[bytes]:
        """The events that only the closing of the stream completes."""

"""Server-sent events, as far as inference servers use them: the ``data`` field, and ``[DONE]`` at the end."""

from __future__ import annotations

from velollm_core.backends.lines import MAX_LINE_BYTES, LineSplitter
from velollm_core.errors import BackendError

DONE = b"[DONE]"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MOST_STRAY = 2**16


class EventStream:
    """`Framing` of ``text/event-stream``: comments and unknown fields are skipped, data lines of an event joined.

    An event named ``error`` becomes ``{"error": …}``. A JSON document where a stream was to be, which is how some
    servers refuse, is the only event of a stream that has no other.
    """

    def __init__(self, end_marker: bytes | None = DONE, max_event: int = MAX_LINE_BYTES) -> None:
        """``end_marker`` None is for servers that close without one; ``max_event`` bytes bound one event."""
        self.ended = False
        self.has_end_marker = end_marker is not None
        self._end_marker = end_marker
        self._max_event = max_event
        self._lines = LineSplitter(max_event)
        self._data: list[bytes] = []
        self._size = 0
        self._first = True
        self._failed = False
        self._empty = True
        self._stray: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes: an event ends at a blank line."""
        return self._take(self._lines.feed(data))

    def flush(self) -> list[bytes]:
        """An event that lacks only its blank line when the stream closes is taken: servers end ``[DONE]`` so."""
        events = self._take([self._lines.flush(), b""])
        if events or not self._empty or not self._stray:
            return events
        return [b"\n".join(self._stray)]

    def _take(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if self._first:
                line, self._first = line.removeprefix(BYTE_ORDER_MARK), False
            if line.startswith(b"data:"):
                self._append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                self._dispatch(events)
            elif line.startswith(b"event:"):
                self._failed = line[6:].strip() == b"error"
            elif self._empty and (self._stray or line.startswith((b"{", b"["))):
                self._keep_stray(line)
            elif line.startswith(b"error:"):
                # Not in the standard: llama.cpp of 2024 and 2025 names its in-stream errors so.
                self._append(line[6:].lstrip())
        return events

    def _append(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value)
        if self._size > self._max_event:
            raise BackendError(f"an event of the answer is longer than {self._max_event} bytes", kind="malformed")

    def _keep_stray(self, line: bytes) -> None:
        if sum(map(len, self._stray)) < MOST_STRAY:
            self._stray.append(line)

    def _dispatch(self, events: list[bytes]) -> None:
        failed, self._failed = self._failed, False
        if not self._data:
            return
        event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data, self._size = [], 0
        self._empty = False
        if failed and b'"error"' not in event:
            event = b'{"error": %b}' % event
        if self.ended:
            return
        if event.strip() == self._end_marker:
            self.ended = True
        elif event:
            events.append(event)

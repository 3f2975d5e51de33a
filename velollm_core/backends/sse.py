"""Server-sent events, as far as inference servers use them: the ``data`` field, and ``[DONE]`` at the end."""

from __future__ import annotations

from velollm_core.backends.lines import MAX_LINE_BYTES, LineSplitter
from velollm_core.errors import BackendError

DONE = b"[DONE]"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventStream:
    """`Framing` of ``text/event-stream``: comments and unknown fields are skipped, data lines of an event joined."""

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

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes: an event ends at a blank line."""
        return self._take(self._lines.feed(data))

    def flush(self) -> list[bytes]:
        """An event that lacks only its blank line when the stream closes is taken: servers end ``[DONE]`` so."""
        return self._take([self._lines.flush(), b""])

    def _take(self, lines: list[bytes]) -> list[bytes]:
        events: list[bytes] = []
        for line in lines:
            if self._first:
                line, self._first = line.removeprefix(BYTE_ORDER_MARK), False
            if line.startswith(b"data:"):
                self._append(line[6:] if line[5:6] == b" " else line[5:])
            elif not line:
                self._dispatch(events)
            elif line.startswith(b"error:"):
                # Not in the standard: llama.cpp of 2024 and 2025 names its in-stream errors so.
                self._append(line[6:].lstrip())
        return events

    def _append(self, value: bytes) -> None:
        self._data.append(value)
        self._size += len(value)
        if self._size > self._max_event:
            raise BackendError(f"an event of the answer is longer than {self._max_event} bytes", kind="malformed")

    def _dispatch(self, events: list[bytes]) -> None:
        if not self._data:
            return
        event = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data, self._size = [], 0
        if self.ended:
            return
        if event.strip() == self._end_marker:
            self.ended = True
        elif event:
            events.append(event)

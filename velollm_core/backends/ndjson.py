"""One JSON document a line: Ollama's streams."""

from __future__ import annotations

from velollm_core.backends.lines import MAX_LINE_BYTES, LineSplitter


class JsonLines:
    """`Framing` of ``application/x-ndjson``. It has no end marker: the last event carries a ``finish_reason``."""

    def __init__(self, max_line: int = MAX_LINE_BYTES) -> None:
        """``max_line`` bytes bound one event."""
        self.ended = False
        self.has_end_marker = False
        self._lines = LineSplitter(max_line)

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes; blank ones are skipped."""
        return [line for line in self._lines.feed(data) if line.strip()]

    def flush(self) -> list[bytes]:
        """A last line without its line end is still an event."""
        rest = self._lines.flush()
        return [rest] if rest.strip() else []

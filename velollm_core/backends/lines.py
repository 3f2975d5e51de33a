"""Lines out of bytes that arrive in any cut."""

from __future__ import annotations

from velollm_core.errors import BackendError

MAX_LINE_BYTES = 8 * 2**20


class LineSplitter:
    """Collect bytes and give out whole lines, without their ends (LF, CRLF or CR); a line may span many reads."""

    def __init__(self, max_line: int = MAX_LINE_BYTES) -> None:
        """``max_line`` bytes bound what is kept of a line that does not end."""
        self._max_line = max_line
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes; raises `BackendError` (kind ``malformed``) for an endless one."""
        if self._size:
            self._parts.append(data)
            if b"\n" not in data and b"\r" not in data and not self._held_return():
                return self._keep(len(data))
            data = b"".join(self._parts)
        lines = data.splitlines(keepends=True)
        # A final CR may be half of a CRLF: only the next byte tells.
        rest = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        self._parts = [rest] if rest else []
        self._size = 0
        self._keep(len(rest))
        for line in lines:
            self._check(len(line))
        return [line.rstrip(b"\r\n") for line in lines]

    def flush(self) -> bytes:
        """What is left without a line end when the stream closes."""
        rest = b"".join(self._parts)
        self._parts, self._size = [], 0
        return rest.removesuffix(b"\r")

    def _held_return(self) -> bool:
        return self._parts[-2].endswith(b"\r")

    def _keep(self, size: int) -> list[bytes]:
        self._size += size
        self._check(self._size)
        return []

    def _check(self, size: int) -> None:
        if size > self._max_line:
            raise BackendError(f"a line of the answer is longer than {self._max_line} bytes", kind="malformed")

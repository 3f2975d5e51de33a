"""A bounded cursor over the first bytes of a GGUF file: nothing is read beyond the file, nothing big is kept."""

from __future__ import annotations

import struct

from attrs import define

from velollm_core.errors import ModelFileError
from velollm_core.models.wording import one_line

FORMATS: dict[int, str] = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""GGUF's value types and their `struct` letters; 8 is a string, 9 an array."""
STRING, ARRAY = 8, 9


class HeaderIncomplete(ModelFileError):
    """The file goes on behind the bytes at hand: read at least ``needed`` bytes of it and parse again."""

    def __init__(self, message: str, needed: int) -> None:
        super().__init__(one_line(message))
        self.needed = needed


@define
class Cursor:
    """Reads values one after the other; ``size`` is the whole file's, of which ``buffer`` holds the beginning."""

    name: str
    buffer: bytes
    size: int
    order: str = "<"
    position: int = 0

    @property
    def remaining(self) -> int:
        """Bytes of the file behind the cursor, at hand or not."""
        return self.size - self.position

    def require(self, count: int, what: str) -> None:
        """Make sure that ``count`` more bytes are there.

        Raises:
            ModelFileError: the file ends before them.
            HeaderIncomplete: the file has them, the buffer has not.
        """
        if count > self.remaining:
            raise self.error(f"{what} needs {count} bytes, but the file ends {self.remaining} bytes later: truncated")
        if self.position + count > len(self.buffer):
            needed = self.position + count
            raise HeaderIncomplete(f"{self.name}: {what} lies behind the {len(self.buffer)} bytes read", needed)

    def error(self, message: str) -> ModelFileError:
        """A `ModelFileError` that names the file and the offset."""
        return ModelFileError(one_line(f"{self.name}: at byte {self.position}: {message}"))

    def number(self, letter: str, what: str) -> int | float | bool:
        """One value of the `struct` format ``letter``."""
        values = self.numbers(letter, 1, what)
        return values[0]

    def integer(self, letter: str, what: str) -> int:
        """One integer of the `struct` format ``letter``."""
        return int(self.number(letter, what))

    def numbers(self, letter: str, count: int, what: str) -> tuple[int | float | bool, ...]:
        """``count`` values of the `struct` format ``letter``."""
        width = struct.calcsize(self.order + letter) * count
        self.require(width, what)
        values = struct.unpack_from(f"{self.order}{count}{letter}", self.buffer, self.position)
        self.position += width
        return values

    def skip(self, letter: str, count: int, what: str) -> None:
        """Step over ``count`` values of the `struct` format ``letter``."""
        width = struct.calcsize(self.order + letter) * count
        self.require(width, what)
        self.position += width

    def text(self, what: str) -> str:
        """One string; bytes that are not UTF-8 are replaced, since only names and labels are read."""
        length = self.integer("Q", f"the length of {what}")
        self.require(length, f"{what} of {length} bytes")
        raw = self.buffer[self.position : self.position + length]
        self.position += length
        return raw.decode("utf-8", "replace")

    def skip_texts(self, count: int, what: str) -> None:
        """Step over ``count`` strings, the hot loop of a vocabulary: 0.1 µs a string."""
        if count * 8 > self.remaining:
            raise self.error(f"{what} counts {count} strings, but only {self.remaining} bytes follow")
        unpack = struct.Struct(self.order + "Q").unpack_from
        buffer, position = self.buffer, self.position
        try:
            for _ in range(count):
                position += 8 + unpack(buffer, position)[0]
        except (struct.error, OverflowError):
            self._give_up(position, 8, what)
        if position > len(buffer):
            self._give_up(position, 0, what)
        self.position = position

    def _give_up(self, position: int, width: int, what: str) -> None:
        if position + width > self.size:
            raise self.error(f"a string of {what} reaches byte {position}, but the file has {self.size}")
        raise HeaderIncomplete(
            f"{self.name}: {what} goes on behind the {len(self.buffer)} bytes read", position + width
        )

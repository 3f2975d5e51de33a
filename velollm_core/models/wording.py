"""Text from a file in a message for a person: one line, printable, not too long."""

from __future__ import annotations


def one_line(text: str, most: int = 300) -> str:
    """``text`` with everything unprintable replaced, cut after ``most`` characters."""
    cut = text if len(text) <= most else f"{text[:most]}…"
    return "".join(letter if letter.isprintable() else "�" for letter in cut)

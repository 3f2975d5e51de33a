"""Read a C++ ``std::map<void *, three size_t>`` that a function returned by value.

The standard library's map is a red-black tree on every platform; libstdc++ and libc++ order the words of header and
node differently, but both keep the pair behind four words. The caller compares the sums with the log, so that a third
layout would be noticed.
"""

from __future__ import annotations

import ctypes

WORD = ctypes.sizeof(ctypes.c_size_t)
PAIR_WORDS = 4
NODE_WORDS = 4


class MapHeader(ctypes.Structure):
    """Room for the map itself: six words in libstdc++, three in libc++."""

    _fields_ = (("words", ctypes.c_size_t * 6),)


def map_entries(header: MapHeader) -> list[tuple[int, int, int, int]]:
    """Key and the three figures of every entry, in key order; the tree's memory is left to the process's end."""
    words = list(header.words)
    if words[3:] == [0, 0, 0]:
        root, left, right = words[1], 0, 1
    else:
        root, left, right = words[2], 2, 3
    entries: list[tuple[int, int, int, int]] = []
    _walk(root, left, right, entries)
    return entries


def _walk(node: int, left: int, right: int, entries: list[tuple[int, int, int, int]]) -> None:
    if not node:
        return
    _walk(_word(node, left), left, right, entries)
    key, first, second, third = (_word(node, NODE_WORDS + index) for index in range(PAIR_WORDS))
    entries.append((key, first, second, third))
    _walk(_word(node, right), left, right, entries)


def _word(address: int, index: int) -> int:
    return ctypes.c_size_t.from_address(address + index * WORD).value

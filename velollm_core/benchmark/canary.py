"""A reference micro-kernel: work that never changes, timed before and after what is measured."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import median

from attrs import frozen

from velollm_core.hardware.linux_cpu import LAST_CACHE, cache_bytes

HASHED = 2**21
LEAST_COPIED, MOST_COPIED = 2**25, 2**27
HASHES, COPIES = 15, 5


@frozen
class Canary:
    """Seconds that a fixed computation on all allowed cores, and a fixed copy in memory, took: medians."""

    compute: float
    memory: float

    def drift(self, later: Canary) -> float:
        """The larger relative change of the two figures until ``later``, ≥ 0."""
        pairs = ((self.compute, later.compute), (self.memory, later.memory))
        return max(abs(after / before - 1) for before, after in pairs)


def sing(threads: int | None = None) -> Canary:
    """Time the canary now, a tenth of a second or two. Hashing lets go of the interpreter lock: cores work together."""
    workers = threads or allowed_threads()
    data, source, target = _memory()
    with ThreadPoolExecutor(workers, initializer=_settle, initargs=(iter(_processors()),)) as pool:

        def compute() -> None:
            list(pool.map(lambda _: hashlib.sha256(data).digest(), range(workers)))

        def copy() -> None:
            target[:] = source

        return Canary(_median_seconds(compute, HASHES), _median_seconds(copy, COPIES))


def allowed_threads() -> int:
    """Logical processors that this process may run on."""
    return len(_processors()) or os.cpu_count() or 1


def _processors() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _settle(free: Iterator[int]) -> None:
    """Keep this thread on the next of the ``free`` processors: what lasts a millisecond is not moved away from another.

    Two threads left on one processor would make a machine at rest look half as fast.
    """
    processor = next(free, None)
    if processor is not None:
        os.sched_setaffinity(threading.get_native_id(), {processor})


@cache
def _memory() -> tuple[bytes, memoryview, bytearray]:
    """What is hashed, and what is copied where: the same memory each time, every page of it written to.

    Fresh memory comes in other pages each time, and what was never written to is one page of zeros: either makes the
    same copy seven times as fast or slow, on a machine at rest.
    """
    copied = _copied()
    return os.urandom(HASHED), memoryview(b"\x55" * copied), bytearray(b"\xaa" * copied)


def _copied() -> int:
    """Bytes of the copy: source and target together are twice the last cache.

    A cache is shared with whoever else has a machine on this processor: a copy within it changed by more than 3%
    between half of all looks at a machine at rest, one beyond it between one in twelve.
    """
    try:
        text = Path(LAST_CACHE).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return min(max(cache_bytes(text) or 0, LEAST_COPIED), MOST_COPIED)


def _median_seconds(work: Callable[[], None], rounds: int) -> float:
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    # A coarse clock may see no time pass at all.
    return max(median(seconds), 1e-9)

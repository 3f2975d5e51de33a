"""How fast all allowed cores together read main memory: a short probe, since no table knows it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from attrs import frozen

from velollm_core.figures import Interval, Rate
from velollm_core.hardware.loose import at, items, number

FILL_SECONDS = 0.2
READ_SECONDS = 0.2
LEAST_BYTES = 64 * 2**20
MOST_BYTES = 2**30
CHUNK = 2**20
LEAST_WINDOW = 0.002
DISTURBED = 3.0
"""A chunk that took this many times the median was interrupted: its core did something else meanwhile."""

Reader = Callable[[int, int], object]


@frozen
class Buffer:
    """Memory of one thread, every page written, so that reading it reads memory and not one page of zeros."""

    memory: mmap.mmap
    address: int
    length: int
    cpu: int | None = None


@frozen
class ReadTime:
    """One chunk of ``length`` bytes, read by one thread from ``start`` to ``end`` (seconds of one clock)."""

    start: float
    end: float
    length: int


def measure_bandwidth(cpus: Sequence[int | None], available: int, cache: int | None = None) -> dict[str, object] | None:
    """Read memory with one thread on each of ``cpus`` at once; the samples, in bytes a second, for `bandwidth_rate`.

    A thread stays on its CPU where the system allows that (None: anywhere), so that no two of them share one.

    Each thread compares two halves of a buffer of its own, chunk after chunk, with the C library's `memcmp` or
    `memchr`, whichever is faster here (they release the interpreter's lock). Both only read, and on the machines
    tried reach 90 to 125% of the bytes that `memcpy` moves (read and written). All buffers together are twice the last
    cache (``cache`` bytes), 64 MiB to 1 GiB, at most an eighth of ``available``, and as much as 0.2 s can fill; then
    0.2 s are spent reading. None where there is not memory enough, or no C library.
    """
    total = min(max(2 * (cache or MOST_BYTES // 4), LEAST_BYTES), MOST_BYTES, available // 8)
    threads = len(cpus)
    chunk = CHUNK * max(1, min(8, threads // 2))
    library = _library()
    if library is None or threads < 1 or total < LEAST_BYTES:
        return None
    length = max(total // threads // chunk, 2) * chunk
    buffers = _fill(library, cpus, length, chunk)
    if not buffers:
        return None
    name, reader = _fastest(library, buffers[0], chunk)
    times = _read(reader, buffers, chunk)
    samples, disturbed = windows(times)
    return {
        "reader": name,
        "threads": len(buffers),
        "bytes": sum(buffer.length for buffer in buffers),
        "undisturbed": samples,
        "disturbed": disturbed,
    }


def bandwidth_rate(samples: object, share: float = 1.0) -> Rate | None:
    """The rate in what `measure_bandwidth` answered, basis ``measured``.

    The value is the median of the windows in which every thread was running: what the memory gives when the cores ask
    for it, neither the luck of one window nor what other programs took away. Where fewer than three windows were
    undisturbed, it is the best window. The interval is the spread, from the 10th percentile to the best.
    ``share`` is the part of the time that the cgroup's quota lets the threads run.
    """
    calm = _rates(at(samples, "undisturbed"))
    rest = _rates(at(samples, "disturbed"))
    spread = sorted(calm if len(calm) >= 3 else calm + rest)
    if not spread:
        return None
    value = statistics.median(spread) if len(calm) >= 3 else spread[-1]
    low = spread[len(spread) // 10]
    return Rate(value * share, "measured", Interval(low * share, spread[-1] * share))


def windows(times: Sequence[Sequence[ReadTime]]) -> tuple[list[float], list[float]]:
    """Bytes a second of all threads in windows of 2 ms or four chunks: undisturbed ones, and the others."""
    if not times or any(not thread for thread in times):
        return [], []
    begin = max(thread[0].start for thread in times)
    end = min(thread[-1].end for thread in times)
    typical = statistics.median(each.end - each.start for thread in times for each in thread)
    width = max(LEAST_WINDOW, 4 * typical)
    number_of_windows = int((end - begin) / width) if end > begin else 0
    moved, broken = [0.0] * number_of_windows, [False] * number_of_windows
    for each in (each for thread in times for each in thread):
        took = max(each.end - each.start, 1e-9)
        first, last = int((each.start - begin) // width), int((each.end - begin) // width)
        for window in range(max(first, 0), min(last, number_of_windows - 1) + 1):
            inside = min(each.end, begin + (window + 1) * width) - max(each.start, begin + window * width)
            moved[window] += each.length * max(inside, 0.0) / took
            broken[window] = broken[window] or took > DISTURBED * typical
    rates = [amount / width for amount in moved]
    pairs = list(zip(rates, broken, strict=True))
    return [rate for rate, bad in pairs if not bad], [rate for rate, bad in pairs if bad]


def _rates(value: object) -> list[float]:
    return [rate for each in items(value, 4096) if (rate := number(each)) is not None and rate > 0]


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        library.memchr.argtypes, library.memchr.restype = (pointer, ctypes.c_int, size), pointer
        library.memcmp.argtypes, library.memset.argtypes = (pointer, pointer, size), (pointer, ctypes.c_int, size)
    except (OSError, AttributeError):
        return None
    return library


def _fill(library: ctypes.CDLL, cpus: Sequence[int | None], length: int, chunk: int) -> list[Buffer]:
    """One buffer a thread, filled side by side; shorter where the time runs out, never below two chunks."""
    deadline = time.perf_counter() + FILL_SECONDS
    buffers: list[Buffer] = []

    def fill(cpu: int | None) -> None:
        _stay_on(cpu)
        try:
            memory = mmap.mmap(-1, length)
        except (OSError, ValueError):
            return  # fewer threads read then, and the samples say how many
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        filled = 0
        while filled < length and (filled < 2 * chunk or time.perf_counter() < deadline):
            library.memset(address + filled, 1, chunk)
            filled += chunk
        buffers.append(Buffer(memory, address, filled, cpu))

    _together([partial(fill, cpu) for cpu in cpus])
    return buffers


def _fastest(library: ctypes.CDLL, buffer: Buffer, chunk: int) -> tuple[str, Reader]:
    """The faster of two functions on a buffer that sits in the cache; some C libraries have only one in good shape."""
    half = chunk // 2
    readers: dict[str, Reader] = {
        "memcmp": lambda address, length: library.memcmp(address, address + length // 2, length // 2),
        "memchr": lambda address, length: library.memchr(address, 2, length),
    }
    took = {}
    for name, reader in readers.items():
        tries = []
        for _ in range(4):
            start = time.perf_counter()
            reader(buffer.address, half)
            tries.append(time.perf_counter() - start)
        took[name] = min(tries)
    # Two streams keep more of the memory busy than one, also where the caches tell no difference.
    name = "memcmp" if took["memcmp"] < 1.5 * took["memchr"] else "memchr"
    return name, readers[name]


def _read(reader: Reader, buffers: Sequence[Buffer], chunk: int) -> list[list[ReadTime]]:
    deadline = time.perf_counter() + READ_SECONDS
    times: list[list[ReadTime]] = []

    def read(buffer: Buffer) -> None:
        _stay_on(buffer.cpu)
        found: list[ReadTime] = []
        place = 0
        while (start := time.perf_counter()) < deadline or not found:
            reader(buffer.address + place, chunk)
            found.append(ReadTime(start, time.perf_counter(), chunk))
            place = place + chunk if place + 2 * chunk <= buffer.length else 0
        times.append(found)

    _together([partial(read, buffer) for buffer in buffers])
    return times


def _stay_on(cpu: int | None) -> None:
    """Bind the calling thread to ``cpu``; it ends with the probe, so nothing needs undoing."""
    if cpu is not None and hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):  # the CPU may just have been taken from us
            os.sched_setaffinity(0, {cpu})


def _together(calls: Sequence[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

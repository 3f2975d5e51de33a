"""Main memory, and the limits that a container puts on it."""

from __future__ import annotations

from attrs import frozen


@frozen
class Memory:
    """Bytes of main memory. ``limit`` is the smallest cgroup limit above this process, None where there is none.

    ``available`` is what this process can still take: the kernel's own figure, cut by what the cgroup has left.
    ``limit_used`` is what the cgroup holds against its limit, reclaimable file pages left out.
    """

    total: int
    available: int
    swap_total: int | None
    swap_free: int | None
    limit: int | None = None
    limit_used: int | None = None

"""How many connections this process may have open, at either end of them."""

from __future__ import annotations

from contextlib import suppress

MOST_FILES = 65_536


def allow_connections() -> None:
    """Let this process open as many connections as the system allows it: each request in flight takes one."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    # Some systems refuse what they report as allowed: macOS reports no bound, and has one of its own.
    while soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return
        most //= 2

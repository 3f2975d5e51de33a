"""Everything about machine and engine that a figure depends on, kept with the figure."""

from __future__ import annotations

import platform
from datetime import UTC, datetime

from attrs import frozen

from velollm_core import __version__
from velollm_core.backends.status import Status
from velollm_core.benchmark.conditions import governor
from velollm_core.hardware.machine import Hardware


@frozen
class Environment:
    """Where and with what a run was made. ``hardware`` is None where nobody looked; host names are never kept."""

    started_at: str
    velollm: str
    python: str
    system: str
    governor: str | None
    backend: str
    backend_version: str | None
    location: str | None
    hardware: Hardware | None = None


def describe(backend: str, status: Status | None, hardware: Hardware | None = None) -> Environment:
    """The record of this moment; ``status`` is the backend's own answer."""
    return Environment(
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        velollm=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        governor=governor(),
        backend=backend,
        backend_version=status.version if status else None,
        location=status.location if status else None,
        hardware=hardware,
    )

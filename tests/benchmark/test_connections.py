"""As many connections as a load has requests in flight."""

from __future__ import annotations

import subprocess
import sys

import pytest

from velollm_core.connections import allow_connections

SCRIPT = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)))
from velollm_core.connections import allow_connections
allow_connections()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of that kind")
def test_the_limit_of_open_files_is_raised_as_far_as_allowed() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of that kind")
@pytest.mark.parametrize(("least_refused", "wanted"), [(10_241, 8_192), (4_096, 2_048), (0, None)])
def test_a_system_that_refuses_what_it_reports_is_asked_for_less(
    least_refused: int, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import resource

    given: list[int] = []

    def setrlimit(_which: int, limits: tuple[int, int]) -> None:
        if limits[0] >= least_refused:
            raise ValueError("not allowed to raise maximum limit")
        given.append(limits[0])

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    allow_connections()
    assert given == ([] if wanted is None else [wanted])

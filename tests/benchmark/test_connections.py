"""As many connections as a load has requests in flight."""

from __future__ import annotations

import subprocess
import sys

import pytest

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

"""Every kernel compiles for a card that is not here, and fits its shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the kernels need Triton, which this platform has no wheel of")

H100_SHARED_BYTES = 227 << 10
KERNELS = {
    "_rms_norm", "_gated", "_rope_store", "_best", "_pick", "_floors", "_next_slots", "_begin", "_end", "_fill",
    "_decode", "_prefill", "_gemv", "_rank",
}  # fmt: skip


@pytest.mark.slow
def test_every_kernel_compiles_for_an_h100() -> None:
    """In a process of its own: this one's kernels are the interpreter's."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    program = Path(__file__).with_name("compiling.py")
    done = subprocess.run(
        [sys.executable, str(program), "90", "132"], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    compiled = [line.split() for line in done.stdout.splitlines()]
    assert {name for name, _, _ in compiled} == KERNELS
    assert {purpose for _, purpose, _ in compiled} >= {"bf16-64", "bf16-256", "options", "fp8"}
    assert all(int(shared) <= H100_SHARED_BYTES for _, _, shared in compiled), done.stdout

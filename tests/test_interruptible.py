"""Work that signals stop: at once, after what is under way, or whatever it takes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from velollm_core.interruptible import finishing, run_interruptibly

WORK = """
import asyncio, os, signal, sys
from velollm_core.interruptible import finishing, run_interruptibly

def press(count):
    for _ in range(count):
        os.kill(os.getpid(), getattr(signal, sys.argv[2]))

async def main():
    try:
        if sys.argv[3] == "between":
            press(int(sys.argv[1]))
            await asyncio.sleep(30)
        with finishing():
            press(int(sys.argv[1]))
            await asyncio.sleep(0.05)
            print("block ended", flush=True)
        await asyncio.sleep(30)
        print("went on", flush=True)
    finally:
        if sys.argv[3] == "cleaning":
            press(1)
        await asyncio.sleep(0.05)
        print("cleaned up", flush=True)

try:
    run_interruptibly(main())
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


def run(presses: int, sign: str = "SIGINT", moment: str = "within") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", WORK, str(presses), sign, moment]
    return subprocess.run(words, capture_output=True, text=True, timeout=20, check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
@pytest.mark.parametrize(
    ("presses", "sign", "moment", "said"),
    [
        (1, "SIGINT", "within", ["block ended", "cleaned up", "stopped"]),
        (2, "SIGINT", "within", ["cleaned up", "stopped"]),
        (1, "SIGTERM", "within", ["cleaned up", "stopped"]),
        (1, "SIGINT", "between", ["cleaned up", "stopped"]),
        (1, "SIGINT", "cleaning", ["block ended", "cleaned up", "stopped"]),
    ],
)
def test_ctrl_c_waits_for_a_block_once(presses: int, sign: str, moment: str, said: list[str]) -> None:
    done = run(presses, sign, moment)
    assert done.stdout.splitlines() == said
    assert ("finishing this block" in done.stderr) == (sign == "SIGINT" and moment != "between")


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
def test_the_third_waits_for_nothing() -> None:
    assert run(3).stdout.splitlines()[-1] == "stopped"


def test_what_is_not_stopped_is_not_disturbed() -> None:
    before = signal.getsignal(signal.SIGINT)

    async def work() -> int:
        with finishing(), finishing():
            await asyncio.sleep(0)
        return 3

    assert run_interruptibly(work()) == 3
    assert asyncio.run(work()) == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_cancellation_of_its_own_is_no_ctrl_c() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_interruptibly(work())


@pytest.mark.skipif(sys.platform == "win32", reason="a process cannot send itself Ctrl-C there")
def test_work_that_breaks_while_it_finishes_tells_its_own_error() -> None:
    async def work() -> None:
        with finishing():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        run_interruptibly(work())

"""Stands between VeloLLM and a server it starts: the server ends when VeloLLM does, however that ends.

``python guard.py COMMAND…`` runs COMMAND until it ends by itself or stdin closes, which the kernel does for a parent
that was killed. Standard library only, run without site-packages: it must start at once and never fail.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from types import FrameType

GRACE_SECONDS = 5.0
PR_SET_PDEATHSIG = 1


def main(command: list[str]) -> None:
    """Run ``command`` and leave with its exit code."""
    try:
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)

    def ended(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=stop, args=(server,), daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, ended)
    threading.Thread(target=_watch_parent, args=(server,), daemon=True).start()
    code = server.wait()
    os._exit(code if code >= 0 else 128 - code)


def stop(server: subprocess.Popen[bytes], grace: float = GRACE_SECONDS) -> None:
    """Ask the server to end, and make it where it has not within ``grace`` seconds."""
    server.terminate()
    try:
        server.wait(grace)
    except subprocess.TimeoutExpired:
        server.kill()


def _watch_parent(server: subprocess.Popen[bytes]) -> None:
    # Not sys.stdin: a buffered read would wait for more than the end of the file.
    while os.read(0, 4096):
        pass
    stop(server)


def _die_with_guard() -> None:
    """On Linux the kernel ends the server even where the guard itself was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Run a stranger's tool: bounded in time and output, never an exception."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Sequence
from typing import IO

from velollm_core.hardware.evidence import Evidence, ToolRun

OUTPUT_LIMIT = 4 * 2**20
"""Bytes kept of each of stdout and stderr; a tool that prints more is stopped."""

EXTRA_PLACES = ("/opt/rocm/bin", "/usr/lib/wsl/lib", "/usr/sbin", "/sbin")
"""Where vendors put tools without adding the place to PATH."""


def find_tool(name: str) -> str | None:
    """The path of a tool on PATH, or where its vendor leaves it."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(EXTRA_PLACES))


def has_tool(evidence: Evidence, name: str) -> bool:
    """Whether the machine behind ``evidence`` has the tool."""
    return evidence.value(f"tool {name}", lambda: find_tool(name) is not None) is True


def environment(evidence: Evidence, variable: str) -> str | None:
    """An environment variable as it is: empty and unset are two things."""
    value = evidence.value(f"environment {variable}", lambda: os.environ.get(variable))
    return value if isinstance(value, str) else None


def run_tool(argv: Sequence[str], seconds: float) -> ToolRun:
    """Run ``argv`` for at most ``seconds``; its children end with it, its output is cut at `OUTPUT_LIMIT`."""
    path = find_tool(argv[0])
    if path is None:
        return ToolRun(tuple(argv), None, error="not found")
    try:
        process = subprocess.Popen(
            [path, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return ToolRun(tuple(argv), None, error=f"cannot be started ({error.strerror or error})")
    return _collect(process, tuple(argv), seconds)


def _collect(process: subprocess.Popen[bytes], argv: tuple[str, ...], seconds: float) -> ToolRun:
    sinks = (bytearray(), bytearray())
    streams = (process.stdout, process.stderr)
    readers = [
        threading.Thread(target=_drain, args=(stream, sink, process), daemon=True)
        for stream, sink in zip(streams, sinks, strict=True)
        if stream is not None
    ]
    for reader in readers:
        reader.start()
    error = None
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        error = f"no answer within {seconds:g} s"
        _end(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)  # one that hangs inside the kernel survives even this, and is left behind
    for reader in readers:
        reader.join(1.0)
    if any(reader.is_alive() for reader in readers):
        _end(process)  # the tool has gone, but a child of its holds the pipes
    if any(len(sink) > OUTPUT_LIMIT for sink in sinks):
        error = error or f"printed more than {OUTPUT_LIMIT // 2**20} MiB"
    stdout, stderr = (bytes(sink[:OUTPUT_LIMIT]).decode("utf-8", "replace") for sink in sinks)
    return ToolRun(argv, None if error else process.returncode, stdout, stderr, error)


def _drain(stream: IO[bytes], sink: bytearray, process: subprocess.Popen[bytes]) -> None:
    with stream:
        while chunk := os.read(stream.fileno(), 65536):
            sink += chunk
            if len(sink) > OUTPUT_LIMIT:
                _end(process)
                return


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the tool and whatever it started."""
    with contextlib.suppress(OSError):  # all of them may have ended by themselves
        if os.name == "posix":
            os.killpg(process.pid, 9)
        else:
            process.kill()

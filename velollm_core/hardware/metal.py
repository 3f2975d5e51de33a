"""Ask Metal for the working set it recommends: run as a program of its own, so that a fault in it ends only itself."""

from __future__ import annotations

import ctypes
import json
import sys

from velollm_core.hardware.loose import parse_json
from velollm_core.hardware.tools import run_tool

FRAMEWORKS = "/System/Library/Frameworks"


def ask_metal(seconds: float = 5.0) -> object:
    """``{"name", "working_set", "unified"}`` of the default GPU (bytes), or ``{"error"}``."""
    run = run_tool((sys.executable, "-m", __name__), seconds)
    found = parse_json(run.stdout) if run.exit_code == 0 else None
    return found if isinstance(found, dict) else {"error": (run.error or f"exit code {run.exit_code}")}


def default_device() -> dict[str, object]:
    """The default GPU, through the Objective-C runtime.

    Raises:
        OSError: this is no Mac, or one without Metal.
    """
    ctypes.CDLL(f"{FRAMEWORKS}/CoreGraphics.framework/CoreGraphics")  # a command-line program gets no device without it
    metal = ctypes.CDLL(f"{FRAMEWORKS}/Metal.framework/Metal")
    runtime = ctypes.CDLL("/usr/lib/libobjc.A.dylib")
    metal.MTLCreateSystemDefaultDevice.restype = ctypes.c_void_p
    runtime.sel_registerName.restype = ctypes.c_void_p
    runtime.sel_registerName.argtypes = (ctypes.c_char_p,)
    device = metal.MTLCreateSystemDefaultDevice()
    if not device:
        raise OSError("Metal has no device here")

    def integer(selector: bytes, kind: type[ctypes.c_uint64 | ctypes.c_bool]) -> int:
        send = ctypes.CFUNCTYPE(kind, ctypes.c_void_p, ctypes.c_void_p)(("objc_msgSend", runtime))
        return int(send(device, runtime.sel_registerName(selector)))

    return {
        "working_set": integer(b"recommendedMaxWorkingSetSize", ctypes.c_uint64),
        "unified": bool(integer(b"hasUnifiedMemory", ctypes.c_bool)),
    }


if __name__ == "__main__":
    print(json.dumps(default_device()))

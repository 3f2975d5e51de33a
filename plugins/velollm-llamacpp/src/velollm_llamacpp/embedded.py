"""Child process: llama.cpp embedded, serving HTTP like a llama-server of one's own.

``python -m velollm_llamacpp.embedded '{"model": …, "host": …, "port": …, "values": {…}}'``. A crash or a hang in
llama.cpp ends here, never in VeloLLM.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

from velollm_llamacpp.library import find_library
from velollm_llamacpp.settings import BY_NAME

LOG_EVERYTHING = 4
LOG_FUNCTIONS = ("_Z15common_log_mainv", "_Z16common_log_flushP10common_log")
EXPERTS = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"


def main() -> None:
    """Serve until killed; leave with 1 where llama.cpp would not load, which its log explains."""
    from xllamacpp import Server

    request = json.loads(sys.argv[1])
    # Kept in a variable: the server ends with its object.
    try:
        server = Server(parameters(request))
    except RuntimeError:
        _finish_log()
        os._exit(1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)
    threading.Event().wait()


def _finish_log() -> None:
    """Let llama.cpp write what it has still to say: it logs from a thread of its own, and the last lines say why."""
    path = find_library()
    if path is not None:
        library = ctypes.CDLL(str(path))
        # C++ names: the wheel is pinned, and without them a reason may be lost, no more.
        main_log, flush = (getattr(library, name, None) for name in LOG_FUNCTIONS)
        if main_log and flush:
            main_log.restype, flush.argtypes, flush.restype = ctypes.c_void_p, [ctypes.c_void_p], None
            flush(main_log())


def parameters(request: dict[str, Any]) -> Any:
    """``request`` as xllamacpp's ``CommonParams``, with llama-server's own defaults for what it leaves open."""
    from xllamacpp import CommonParams

    params = CommonParams()
    params.model.path = request["model"]
    params.hostnames, params.port = [request["host"]], request["port"]
    params.verbosity, params.endpoint_metrics = LOG_EVERYTHING, True
    params.n_parallel = -1
    for name, value in request["values"].items():
        _set(params, name, value)
    return params


def _set(params: Any, name: str, value: Any) -> None:
    *path, field = BY_NAME[name].field.split(".")
    for part in path:
        params = getattr(params, part)
    if name == "--n-cpu-moe":
        layers = ",".join(EXPERTS.format(layer=layer) for layer in range(value))
        value = ",".join(filter(None, [params.tensor_buft_overrides, layers]))
    elif name == "--override-tensor":
        value = ",".join(filter(None, [params.tensor_buft_overrides, value]))
    setattr(params, field, _converted(name, value))


def _converted(name: str, value: Any) -> Any:
    """``value`` as the field of ``name`` takes it: most are plain, some enumerations."""
    import xllamacpp

    match name:
        case "--cache-type-k" | "--cache-type-v":
            return xllamacpp.ggml_type[f"GGML_TYPE_{value.upper()}"]
        case "--flash-attn":
            spelled = {"auto": "AUTO", "on": "ENABLED", "off": "DISABLED"}[value]
            return xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{spelled}"]
        case "--load-mode":
            return xllamacpp.llama_load_mode[f"LLAMA_LOAD_MODE_{value.upper().replace('+', '_')}"]
        case "--spec-type":
            spelled = value.upper().replace("-", "_")
            return [xllamacpp.common_speculative_type[f"COMMON_SPECULATIVE_TYPE_{spelled}"]]
        case "--fit":
            return value == "on"
    return value


if __name__ == "__main__":
    main()

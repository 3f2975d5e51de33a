"""Child process: ask llama.cpp's own allocator what models would take, allocating none of it.

``python -m velollm_llamacpp.measure`` reads one JSON request from stdin and writes one JSON line per entry of
``loads``, so that what an abort cuts off is known. A process of its own, since llama.cpp asserts where it is surprised.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from velollm_llamacpp.library import FLASH_ATTENTION, LOAD_MODE_NONE, LOG_ERROR, Library, WrongBuildError

Answer = dict[str, Any]
Buffers = list[tuple[str, bool, int, int, int]]
EXPERTS = r"blk\.{layer}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
PROBE_TYPES = ("f16", "f32")
"""A cache is twice as large in the second as in the first, recurrent state is not: two sums tell both apart."""
STATE_LINE, COMPRESSED_LINE = "llama_memory_recurrent: size", "llama_dsv4_comp_state: "
WATCHDOG_SECONDS = 60


class Override(ctypes.Structure):
    """``llama_model_tensor_buft_override``: tensors that match a pattern live in this kind of buffer."""

    _fields_ = (("pattern", ctypes.c_char_p), ("kind", ctypes.c_void_p))


def main() -> None:
    """Answer the request on stdin."""
    # Native code may print as it likes: only our answers go to stdout.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if hasattr(signal, "alarm"):
        signal.alarm(WATCHDOG_SECONDS)
    request = json.load(sys.stdin)
    try:
        library = Library(Path(request["library"]))
    except WrongBuildError as error:
        print(json.dumps({"failed": str(error)}), file=answers, flush=True)
        return
    for load in request["loads"]:
        print(json.dumps(measure(library, request["model"], load)), file=answers, flush=True)
    # The destructors assert that what was promised was allocated: leave without them.
    os._exit(0)


def measure(library: Library, path: str, load: Answer) -> Answer:
    """The memory of the model at ``path`` under ``load`` (explicit: no value is left to the server), or why not."""
    library.log.clear()
    if load["gpu_layers"] and not library.call("llama_supports_gpu_offload"):
        return {"failed": "this build of llama.cpp has no GPU support"}
    model = _load_model(library, path, load)
    if not model:
        return {"refused": _reasons(library)}
    context = _open_context(library, model, load, load["type_k"], load["type_v"])
    if not context:
        return {"refused": _reasons(library)}
    log = [text for _, text in _lines(library)]
    probes = [_probe(library, model, load, kind) for kind in PROBE_TYPES] if _keeps_state(log) else []
    return {
        "context": library.call("llama_n_ctx", context),
        "context_per_sequence": library.call("llama_n_ctx_seq", context),
        "batch": library.call("llama_n_batch", context),
        "ubatch": library.call("llama_n_ubatch", context),
        "vocabulary": library.call("llama_vocab_n_tokens", library.call("llama_model_get_vocab", model)),
        "buffers": library.buffers(context),
        "log": log,
        "probes": probes,
    }


def _probe(library: Library, model: int, load: Answer, kind: str) -> Buffers | None:
    """The buffers where the cache is of type ``kind``; None where nothing says."""
    context = _open_context(library, model, load, kind, kind)
    return library.buffers(context) if context else None


def _load_model(library: Library, path: str, load: Answer) -> int:
    params = library.model_params()
    params.no_alloc, params.load_mode, params.use_extra_bufts = True, LOAD_MODE_NONE, False
    params.n_gpu_layers = load["gpu_layers"]
    overrides = (Override * (load["cpu_moe_layers"] + 1))()
    for layer in range(load["cpu_moe_layers"]):
        kind = library.call("ggml_backend_cpu_buffer_type")
        overrides[layer] = Override(EXPERTS.format(layer=layer).encode(), kind)
    params.tensor_buft_overrides = ctypes.addressof(overrides)
    return library.call("llama_model_load_from_file", path.encode(), params)


def _open_context(library: Library, model: int, load: Answer, type_k: str, type_v: str) -> int:
    types = library.types()
    params = library.context_params()
    params.n_ctx, params.n_seq_max, params.kv_unified = load["total_context"], load["parallel"], load["kv_unified"]
    # llama-server asks for one row of logits a slot; all rows, as llama-fit-params assumes, would take far more.
    params.n_outputs_max, params.n_outputs_max_per_seq = load["parallel"], 1
    params.n_batch, params.n_ubatch, params.swa_full = load["batch"], load["ubatch"], load["swa_full"]
    params.flash_attn_type = FLASH_ATTENTION[load["flash_attn"]]
    params.type_k, params.type_v = types[type_k], types[type_v]
    return library.call("llama_init_from_model", model, params)


def _keeps_state(log: list[str]) -> bool:
    return any(STATE_LINE in line or COMPRESSED_LINE in line for line in log)


def _reasons(library: Library) -> list[str]:
    return [text for level, text in _lines(library) if level >= LOG_ERROR] or ["llama.cpp gave no reason"]


def _lines(library: Library) -> Iterator[tuple[int, str]]:
    """The log since the last look, cut into lines."""
    for level, text in library.log:
        for line in text.splitlines():
            if line.strip():
                yield level, line.strip()
    library.log.clear()


if __name__ == "__main__":
    main()

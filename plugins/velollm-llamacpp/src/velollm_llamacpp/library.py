"""llama.cpp's C interface in the shared object that xllamacpp brings, through ctypes.

Only the standard library is imported here: the child processes that use it start in milliseconds.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from velollm_llamacpp.cpp_map import MapHeader, map_entries
from velollm_llamacpp.structs import BUILD, GGML_TYPE_COUNT, ContextParams, ModelParams

LOG_ERROR = 4
LOAD_MODE_NONE = 0
FLASH_ATTENTION = {"auto": -1, "off": 0, "on": 1}

BREAKDOWN = "_Z26llama_get_memory_breakdownPK13llama_context"
"""C++ only: the symbol may be missing (or mangled otherwise) elsewhere, and then the log must do."""

MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "kv_overrides": None,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_alloc": False,
    "load_mtp": False,
}
CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "yarn_beta_slow": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "moe_cache_size": 0,
    "abort_callback": None,
    "embeddings": False,
    "offload_kqv": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "samplers": None,
    "n_samplers": 0,
    "ctx_other": None,
}

_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
Signatures = Mapping[str, tuple[object, list[object]]]
_SIGNATURES: Signatures = {
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_log_set": (None, [_LOG_CALLBACK, ctypes.c_void_p]),
    "llama_backend_init": (None, []),
    "llama_model_load_from_file": (ctypes.c_void_p, [ctypes.c_char_p, ModelParams]),
    "llama_init_from_model": (ctypes.c_void_p, [ctypes.c_void_p, ContextParams]),
    "llama_free": (None, [ctypes.c_void_p]),
    "llama_model_free": (None, [ctypes.c_void_p]),
    "llama_model_get_vocab": (ctypes.c_void_p, [ctypes.c_void_p]),
    "llama_vocab_n_tokens": (ctypes.c_int32, [ctypes.c_void_p]),
    "llama_n_ctx": (ctypes.c_uint32, [ctypes.c_void_p]),
    "llama_n_ctx_seq": (ctypes.c_uint32, [ctypes.c_void_p]),
    "llama_n_batch": (ctypes.c_uint32, [ctypes.c_void_p]),
    "llama_n_ubatch": (ctypes.c_uint32, [ctypes.c_void_p]),
    "llama_supports_gpu_offload": (ctypes.c_bool, []),
    "ggml_type_name": (ctypes.c_char_p, [ctypes.c_int]),
    "ggml_backend_buft_name": (ctypes.c_char_p, [ctypes.c_void_p]),
    "ggml_backend_buft_is_host": (ctypes.c_bool, [ctypes.c_void_p]),
    "ggml_backend_cpu_buffer_type": (ctypes.c_void_p, []),
}


class WrongBuildError(Exception):
    """The shared object is not the build that these bindings were made for."""


def find_library() -> Path | None:
    """The shared object of xllamacpp, found without importing it; None where it is not installed."""
    spec = find_spec("xllamacpp")
    for folder in spec.submodule_search_locations or () if spec else ():
        for pattern in ("xllamacpp*.so", "xllamacpp*.pyd"):
            for path in sorted(Path(folder).glob(pattern)):
                return path
    return None


class Library:
    """The loaded shared object; ``log`` collects its lines as (level, text)."""

    def __init__(self, path: Path, further: Signatures | None = None) -> None:
        """Load ``path`` and check that its structures are those of `BUILD`; ``further`` functions are declared too.

        Raises:
            WrongBuildError: it is another build, or no llama.cpp at all.
        """
        self.log: list[tuple[int, str]] = []
        try:
            self._dll = ctypes.CDLL(str(path))
            for name, (result, arguments) in {**_SIGNATURES, **(further or {})}.items():
                function = getattr(self._dll, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise WrongBuildError(f"{path.name} is not the llama.cpp of {BUILD}: {error}") from error
        check_defaults(self._dll.llama_model_default_params(), MODEL_DEFAULTS)
        check_defaults(self._dll.llama_context_default_params(), CONTEXT_DEFAULTS)
        self._callback = _LOG_CALLBACK(lambda level, text, _: self.log.append((level, text.decode(errors="replace"))))
        self._dll.llama_log_set(self._callback, None)
        self._dll.llama_backend_init()
        self._breakdown = self._find_breakdown()

    def call(self, name: str, *arguments: object) -> int:
        """The result of the function ``name``, one of those declared above."""
        result: int = getattr(self._dll, name)(*arguments)
        return result

    def function(self, name: str) -> Callable[..., Any]:
        """The function ``name`` itself, for those called often or that return no number."""
        found: Callable[..., Any] = getattr(self._dll, name)
        return found

    def types(self) -> dict[str, int]:
        """ggml's type numbers by their lower-case names."""
        names = {number: self._dll.ggml_type_name(number) for number in range(GGML_TYPE_COUNT)}
        return {name.decode(): number for number, name in names.items() if name}

    def model_params(self) -> ModelParams:
        """The library's own defaults for a model."""
        params: ModelParams = self._dll.llama_model_default_params()
        return params

    def context_params(self) -> ContextParams:
        """The library's own defaults for a context."""
        params: ContextParams = self._dll.llama_context_default_params()
        return params

    def buffers(self, context: int) -> list[tuple[str, bool, int, int, int]] | None:
        """Name, whether host memory, and bytes of (model, context, compute) per kind of buffer, exact.

        None where this platform does not export the function that knows.
        """
        if self._breakdown is None:
            return None
        found = []
        for kind, model, cache, compute in map_entries(self._breakdown(context)):
            name: bytes = self._dll.ggml_backend_buft_name(kind)
            found.append((name.decode(), bool(self._dll.ggml_backend_buft_is_host(kind)), model, cache, compute))
        return found

    def _find_breakdown(self) -> Callable[[int], MapHeader] | None:
        try:
            function = self._dll[BREAKDOWN]
        except AttributeError:
            return None
        function.restype, function.argtypes = MapHeader, [ctypes.c_void_p]
        return function


def check_defaults(params: ctypes.Structure, expected: Mapping[str, object]) -> None:
    """Canaries: a shifted field would show a default that nobody set.

    Raises:
        WrongBuildError: a default differs.
    """
    for field, value in expected.items():
        found = getattr(params, field)
        if found != value:
            text = f"the default of {field} is {found}, not {value}: this llama.cpp is not {BUILD}"
            raise WrongBuildError(text)

"""The functions of llama.cpp's C interface that the engine calls, beyond those that measuring needs."""

from __future__ import annotations

import ctypes
from pathlib import Path

from velollm_llamacpp.library import Library, Signatures, WrongBuildError
from velollm_llamacpp.structs import BUILD, Batch

_POINTER, _BOOL, _SIZE, _ID = ctypes.c_void_p, ctypes.c_bool, ctypes.c_size_t, ctypes.c_int32
_RANGE = [_ID, _ID]

SIGNATURES: Signatures = {
    "llama_batch_init": (Batch, [ctypes.c_int32, ctypes.c_int32, ctypes.c_int32]),
    "llama_batch_free": (None, [Batch]),
    "llama_decode": (ctypes.c_int32, [_POINTER, Batch]),
    "llama_get_logits_ith": (_POINTER, [_POINTER, ctypes.c_int32]),
    "llama_get_memory": (_POINTER, [_POINTER]),
    "llama_memory_seq_rm": (_BOOL, [_POINTER, _ID, *_RANGE]),
    "llama_memory_seq_cp": (None, [_POINTER, _ID, _ID, *_RANGE]),
    "llama_memory_seq_pos_min": (ctypes.c_int32, [_POINTER, _ID]),
    "llama_memory_seq_pos_max": (ctypes.c_int32, [_POINTER, _ID]),
    "llama_state_seq_get_size": (_SIZE, [_POINTER, _ID]),
    "llama_state_seq_get_data": (_SIZE, [_POINTER, _POINTER, _SIZE, _ID]),
    "llama_state_seq_set_data": (_SIZE, [_POINTER, ctypes.c_char_p, _SIZE, _ID]),
    "llama_model_n_ctx_train": (ctypes.c_int32, [_POINTER]),
    "llama_model_n_layer": (ctypes.c_int32, [_POINTER]),
    "llama_model_has_encoder": (_BOOL, [_POINTER]),
    "llama_model_has_decoder": (_BOOL, [_POINTER]),
    "llama_model_is_recurrent": (_BOOL, [_POINTER]),
    "llama_model_is_hybrid": (_BOOL, [_POINTER]),
    "llama_model_is_diffusion": (_BOOL, [_POINTER]),
    "llama_model_meta_val_str": (ctypes.c_int32, [_POINTER, ctypes.c_char_p, ctypes.c_char_p, _SIZE]),
    "llama_model_chat_template": (ctypes.c_char_p, [_POINTER, ctypes.c_char_p]),
    "llama_vocab_is_eog": (_BOOL, [_POINTER, ctypes.c_int32]),
    "llama_vocab_bos": (ctypes.c_int32, [_POINTER]),
    "llama_vocab_eos": (ctypes.c_int32, [_POINTER]),
    "llama_vocab_get_text": (ctypes.c_char_p, [_POINTER, ctypes.c_int32]),
    "llama_tokenize": (
        ctypes.c_int32,
        [_POINTER, ctypes.c_char_p, ctypes.c_int32, _POINTER, ctypes.c_int32, _BOOL, _BOOL],
    ),
    "llama_token_to_piece": (
        ctypes.c_int32,
        [_POINTER, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32, _BOOL],
    ),
}


def open_library(path: Path) -> Library:
    """The library at ``path`` with the engine's functions declared, its structures checked by what it fills in.

    Raises:
        WrongBuildError: it is another build than these declarations were generated from.
    """
    library = Library(path, SIGNATURES)
    batch: Batch = library.function("llama_batch_init")(4, 0, 1)
    filled = [
        bool(getattr(batch, name)) for name in ("n_tokens", "token", "embd", "pos", "n_seq_id", "seq_id", "logits")
    ]
    library.function("llama_batch_free")(batch)
    if filled != [False, True, False, True, True, True, True]:
        raise WrongBuildError(f"llama_batch is laid out otherwise: this llama.cpp is not {BUILD}")
    return library

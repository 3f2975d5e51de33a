"""llama.cpp's model and context in the child: every call is checked before it is made."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

import numpy as np

from velollm_llamacpp.engine.messages import SEQUENCE_IDS, Load, Loaded, Run
from velollm_llamacpp.engine.native_vocabulary import NativeVocabulary
from velollm_llamacpp.engine.sampling import Row
from velollm_llamacpp.library import FLASH_ATTENTION, LOG_ERROR, Library
from velollm_llamacpp.structs import Batch

NO_CELLS = 1


class Refused(Exception):
    """The model or a setting is none that can be run here."""


class Context:
    """One model, one context in unified mode: all sequence ids share one pool of cells.

    llama.cpp aborts the process where an id is out of range or a batch too large, and answers -1 where a position
    does not follow the one before; such calls are refused here with a `ValueError` instead.
    """

    def __init__(self, library: Library, load: Load) -> None:
        self._library = library
        self._load = load
        self._model = _load_model(library, load)
        self.text = NativeVocabulary(library, library.call("llama_model_get_vocab", self._model))
        self.num_tokens = self.text.num_tokens
        self._context = self._open()
        self._memory = library.call("llama_get_memory", self._context)
        self.largest_batch = library.call("llama_n_batch", self._context)
        self._decode, self._logits = library.function("llama_decode"), library.function("llama_get_logits_ith")
        self._arrays = _BatchArrays(self.largest_batch)

    def facts(self) -> Loaded:
        """What the parent needs to know."""
        library, model, vocabulary = self._library, self._model, self.text.handle
        buffers = library.buffers(self._context)
        ends = [t for t in range(self.num_tokens) if library.call("llama_vocab_is_eog", vocabulary, t)]
        template: bytes | None = library.function("llama_model_chat_template")(model, None)
        return Loaded(
            cells=library.call("llama_n_ctx", self._context),
            batch=self.largest_batch,
            vocabulary=self.num_tokens,
            layers=library.call("llama_model_n_layer", model),
            training_context=library.call("llama_model_n_ctx_train", model),
            cache_bytes=sum(cache for *_, cache, _ in buffers) if buffers is not None else None,
            end_ids=frozenset(ends),
            pieces=self.text.pieces(),
            bos=self.text.name(library.call("llama_vocab_bos", vocabulary)),
            eos=self.text.name(library.call("llama_vocab_eos", vocabulary)),
            chat_template=template.decode(errors="replace") if template else None,
        )

    def remove(self, sequence: int, start: int, end: int) -> None:
        """Forget a range of positions of ``sequence``."""
        self._check(sequence)
        if not self._library.call("llama_memory_seq_rm", self._memory, sequence, start, end):
            raise ValueError(f"this model's memory cannot drop positions {start} to {end} of a sequence")

    def share(self, source: int, target: int, start: int, end: int) -> None:
        """Let ``target`` hold the cells of ``source`` in a range, which ``source`` must hold."""
        self._check(source, target)
        if source == target or not 0 <= start < end or end > self.end(source):
            raise ValueError(f"sequence {target} cannot share positions {start} to {end} of sequence {source}")
        self._library.function("llama_memory_seq_cp")(self._memory, source, target, start, end)

    def end(self, sequence: int) -> int:
        """The position after the last that ``sequence`` holds."""
        return self._library.call("llama_memory_seq_pos_max", self._memory, sequence) + 1

    def state(self, sequence: int) -> bytes:
        """A copy of what ``sequence`` holds."""
        self._check(sequence)
        size = self._library.call("llama_state_seq_get_size", self._context, sequence)
        buffer = ctypes.create_string_buffer(size)
        written = self._library.call("llama_state_seq_get_data", self._context, buffer, size, sequence)
        if written != size:
            raise ValueError(f"llama.cpp wrote {written} of {size} bytes of a sequence's state")
        return buffer.raw

    def restore(self, sequence: int, state: bytes) -> bool:
        """Write ``state`` into new cells; False where llama.cpp finds none."""
        self._check(sequence)
        return self._library.call("llama_state_seq_set_data", self._context, state, len(state), sequence) > 0

    def decode(self, runs: Sequence[Run]) -> bool:
        """Compute ``runs``, at most the largest batch in all; False, and nothing done, where cells are missing.

        Raises:
            ValueError: a run does not follow what its sequence holds, or llama.cpp could not compute.
        """
        self._check_runs(runs)
        count = self._arrays.fill(runs)
        code: int = self._decode(self._context, self._arrays.batch(count))
        if code not in (0, NO_CELLS):
            raise ValueError(f"llama_decode answered {code}: {self.reason()}")
        return code == 0

    def rows(self, runs: Iterable[Run]) -> list[Row]:
        """The logits of the last batch, for each of its ``runs`` that draws; valid until the next batch."""
        found, last = [], -1
        for run in runs:
            last += len(run.token_ids)
            if run.draw is not None:
                address = self._logits(self._context, last)
                if not address:
                    raise ValueError("llama.cpp has no logits for a row that asked for them")
                pointer = ctypes.cast(address, ctypes.POINTER(ctypes.c_float))
                found.append(np.ctypeslib.as_array(pointer, (self.num_tokens,)))
        return found

    def reason(self) -> str:
        """The library's own last error."""
        return _reason(self._library, -1)

    def _check(self, *sequences: int) -> None:
        for sequence in sequences:
            if not 0 <= sequence < self._load.num_sequences:
                raise ValueError(f"sequence id {sequence} of {self._load.num_sequences}")

    def _check_runs(self, runs: Sequence[Run]) -> None:
        if not 0 < sum(len(run.token_ids) for run in runs) <= self.largest_batch:
            raise ValueError(f"a batch has 1 to {self.largest_batch} tokens")
        if sum(run.draw is not None for run in runs) > self._load.num_sequences:
            raise ValueError(f"at most {self._load.num_sequences} rows of logits")
        if len({run.sequence for run in runs}) < len(runs):
            raise ValueError("a sequence occurs twice in a batch")
        for run in runs:
            self._check(run.sequence)
            if run.start != self.end(run.sequence) or not run.token_ids:
                raise ValueError(f"sequence {run.sequence} ends at {self.end(run.sequence)}, not at {run.start}")
            if not 0 <= min(run.token_ids) <= max(run.token_ids) < self.num_tokens:
                raise ValueError(f"a token id is outside the vocabulary of {self.num_tokens}")

    def _open(self) -> int:
        library, load = self._library, self._load
        params = library.context_params()
        params.n_ctx, params.n_seq_max, params.kv_unified, params.swa_full = load.cells, load.num_sequences, True, True
        params.n_batch, params.n_ubatch = load.batch, min(load.batch, load.ubatch)
        # A row of logits is reserved for each sequence id, and fewer allowed than reserved is an abort.
        params.n_outputs_max, params.n_outputs_max_per_seq = load.num_sequences, 1
        params.flash_attn_type = FLASH_ATTENTION[load.flash_attn]
        types = library.types()
        params.type_k, params.type_v = types[load.type_k], types[load.type_v]
        if load.threads:
            params.n_threads = params.n_threads_batch = load.threads
        if not 0 < load.num_sequences <= SEQUENCE_IDS:
            raise Refused(f"{load.num_sequences} sequence ids; llama.cpp has {SEQUENCE_IDS}")
        context = library.call("llama_init_from_model", self._model, params)
        if not context:
            raise Refused(f"{load.model} cannot be run so: {_reason(library, 0)}")
        return context


class _BatchArrays:
    """The arrays that a ``llama_batch`` points at, made once."""

    def __init__(self, size: int) -> None:
        self._tokens, self._positions = np.zeros(size, np.int32), np.zeros(size, np.int32)
        self._counts, self._sequences = np.ones(size, np.int32), np.zeros(size, np.int32)
        self._pointers = (self._sequences.ctypes.data + 4 * np.arange(size)).astype(np.uintp)
        self._outputs = np.zeros(size, np.int8)

    def fill(self, runs: Sequence[Run]) -> int:
        """Write the tokens of ``runs``; how many they are."""
        count = 0
        for run in runs:
            end = count + len(run.token_ids)
            self._tokens[count:end] = run.token_ids
            self._positions[count:end] = np.arange(run.start, run.start + end - count)
            self._sequences[count:end] = run.sequence
            self._outputs[count:end] = 0
            self._outputs[end - 1] = run.draw is not None
            count = end
        return count

    def batch(self, count: int) -> Batch:
        """The structure over the first ``count`` tokens."""
        arrays = (self._tokens, None, self._positions, self._counts, self._pointers, self._outputs)
        return Batch(count, *(array.ctypes.data if array is not None else None for array in arrays))


def _load_model(library: Library, load: Load) -> int:
    params = library.model_params()
    params.n_gpu_layers = load.gpu_layers
    model = library.call("llama_model_load_from_file", load.model.encode(), params)
    if not model:
        raise Refused(f"{load.model} cannot be loaded: {_reason(library, 0)}")
    for kind in ("recurrent", "hybrid", "diffusion"):
        if library.call(f"llama_model_is_{kind}", model):
            raise Refused(f"a {kind} model keeps state that positions cannot share or drop; let llama-server run it")
    if library.call("llama_model_has_encoder", model) or not library.call("llama_model_has_decoder", model):
        raise Refused("only models that are a decoder and nothing else are run here")
    # llama.cpp decodes with models of the kind of BERT too, and what comes out is no text.
    if _metadata(library, model, f"{_metadata(library, model, 'general.architecture')}.attention.causal") == "false":
        raise Refused(f"{load.model} embeds texts and writes none: its tokens look at those behind them")
    return model


def _metadata(library: Library, model: int, key: str) -> str:
    """A value of the file's header as text, empty where there is none."""
    buffer = ctypes.create_string_buffer(256)
    found: int = library.function("llama_model_meta_val_str")(model, key.encode(), buffer, len(buffer))
    return buffer.value.decode(errors="replace") if found >= 0 else ""


def _reason(library: Library, place: int) -> str:
    errors = [text.strip() for level, text in library.log if level >= LOG_ERROR and text.strip()]
    return errors[place] if errors else "llama.cpp gave no reason"

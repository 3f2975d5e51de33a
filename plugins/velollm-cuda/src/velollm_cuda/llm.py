"""The engine as a library: `LLM(path).generate(prompts, SamplingParams(…))`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from attrs import evolve, fields

from velollm_core.backends import request
from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.errors import VeloError
from velollm_cuda.chat import ChatMessage
from velollm_cuda.engine import DTYPES, Engine, build_engine
from velollm_cuda.generation import GenerationConfig
from velollm_cuda.hub import find_model
from velollm_cuda.job import Job, finished, run_jobs
from velollm_cuda.options import EngineOptions
from velollm_cuda.output import Generation
from velollm_cuda.params import SamplingParams
from velollm_cuda.prompt import Prompt, check_ids, conversations, ids_of, listed, text_of
from velollm_cuda.text import stop_ids
from velollm_cuda.tokens import FILE, Tokenizer

Params = request.SamplingParams | Sequence[request.SamplingParams] | None
NAMES = {"half": "float16", "float": "float32"}


class LLM:
    """A model that is loaded, and answers lists of prompts as fast as the machine can.

    Use it as a context manager, or call `close`, to give its memory back. One call runs at a time.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        tokenizer: str | Path | None = None,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        enable_prefix_caching: bool = True,
        parts: EngineParts = CORE,
        **options: object,
    ) -> None:
        """Load ``model``, a folder with ``config.json`` and safetensors, or a hub id (``revision`` of it).

        ``tokenizer`` names another folder for the tokenizer; without any, prompts must be token ids and answers have
        no text. ``dtype`` is ``auto``, a name or a torch dtype. ``parts`` make block manager and scheduler: the core's
        own, or what `velollm_core.parts.installed_parts` finds. ``options`` are fields of `EngineOptions`:
        ``gpu_memory_utilization``, ``max_model_len``, ``max_num_seqs``, ``enforce_eager``, ``load_format``, ``seed``, …

        Raises:
            ModelFileError: the model cannot be found or read.
            ModelRefused: it is none that this engine runs.
            OutOfBlocks: it does not fit in the memory that is free.
        """
        self._options = _options(dtype, options)
        self._folder = find_model(model, revision=revision, weights=self._options.load_format != "dummy")
        where = find_model(tokenizer, weights=False) if tokenizer is not None else self._folder
        self.tokenizer = Tokenizer.load(where) if tokenizer is not None or (where / FILE).exists() else None
        self._generation = GenerationConfig.load(self._folder)
        self._use_cache = enable_prefix_caching
        self._calls = 0
        self._lock = threading.Lock()
        self._ended = ""
        self._thread = ThreadPoolExecutor(1, "velollm-engine")
        self._loaded: Engine | None = self._thread.submit(build_engine, self._folder, self._options, parts).result()

    @property
    def engine(self) -> Engine:
        """The engine underneath; it lives in a thread of its own.

        Raises:
            VeloError: it was closed, or has failed.
        """
        if self._loaded is None or self._ended:
            raise VeloError(f"{self._folder}: this LLM {self._ended}; make another")
        return self._loaded

    @property
    def default_params(self) -> SamplingParams:
        """How the model's authors sample, from ``generation_config.json``: what `generate` does unless told."""
        return self._generation.params

    @property
    def eos_ids(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return stop_ids(self._generation, self.tokenizer)

    def generate(self, prompts: Prompt | Sequence[Prompt], sampling_params: Params = None) -> list[Generation]:
        """Answer ``prompts``, in their order.

        A prompt is a text, a list of token ids, or ``{"prompt": …}`` or ``{"prompt_token_ids": …}``; one alone may
        stand without a list. ``sampling_params`` holds for all, or is a list with one for each.

        Raises:
            OutOfBlocks: a prompt and its answer are longer than a sequence may be; nothing has run then.
            VeloError: a prompt is no prompt, or needs the tokenizer that the model lacks.
        """
        each = listed(prompts)
        texts = [text_of(prompt) for prompt in each]
        ids = [ids_of(prompt, text) for prompt, text in zip(each, texts, strict=True)]
        return self._answer(texts, self._encoded(texts, ids), sampling_params)

    def chat(
        self,
        messages: Sequence[ChatMessage] | Sequence[Sequence[ChatMessage]],
        sampling_params: Params = None,
        **template: object,
    ) -> list[Generation]:
        """Answer one conversation, or several, written by the model's chat template; ``template`` are its switches.

        Raises:
            VeloError: these are no messages, the model has no template, or the template refuses them.
        """
        several = conversations(messages)
        tokenizer = self._tokenizer
        texts = [tokenizer.chat_prompt(each, **template) for each in several]  # type: ignore[arg-type]
        return self._answer(texts, [tokenizer.encode(text, special=False) for text in texts], sampling_params)

    def close(self) -> None:
        """Give the model's memory back; another `LLM` may then take it."""
        with self._lock:
            if self._loaded is not None:
                self._thread.submit(self._loaded.loop.executor.close).result()
                self._thread.shutdown()
            self._loaded, self._ended = None, self._ended or "was closed"
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise VeloError(f"{self._folder / FILE}: not found, so text means nothing; put it there, or give token ids")
        return self.tokenizer

    def _encoded(self, texts: Sequence[str | None], ids: Sequence[list[int] | None]) -> list[list[int]]:
        written = [text for text, given in zip(texts, ids, strict=True) if given is None and text is not None]
        encoded = iter(self._tokenizer.encode_all(written)) if written else iter(())
        return [next(encoded) if given is None else given for given in ids]

    def _answer(self, texts: Sequence[str | None], ids: Sequence[list[int]], params: Params) -> list[Generation]:
        with self._lock:
            engine = self.engine
            check_ids(ids, engine.config.vocabulary)
            self._calls += 1
            each = zip(texts, ids, self._params(params, ids, engine.limits.max_model_len), strict=True)
            jobs = [self._job(number, *one) for number, one in enumerate(each)]
            self._run(engine, jobs)
            return finished(jobs, self.tokenizer)

    def _run(self, engine: Engine, jobs: Sequence[Job]) -> None:
        """Run ``jobs`` in the engine's thread: an interrupt then never falls into the middle of a step."""
        stop = threading.Event()
        running = self._thread.submit(run_jobs, engine.loop, jobs, stop)
        try:
            running.result()
        except VeloError:
            raise
        except Exception as error:
            self._ended = f"failed ({type(error).__name__}: {error})"
            raise
        except BaseException:
            stop.set()
            running.result()
            raise

    def _params(self, given: Params, prompts: Sequence[list[int]], longest: int) -> list[SamplingParams]:
        if given is None:
            own = self.default_params
            rooms = [max(1, longest - len(prompt)) for prompt in prompts]
            return [evolve(own, max_tokens=min(own.max_tokens, room)) for room in rooms]
        each = [given] * len(prompts) if isinstance(given, request.SamplingParams) else list(given)
        if wrong := [own for own in each if not isinstance(own, request.SamplingParams)]:
            raise VeloError(f"sampling parameters are SamplingParams, one for all or one each, found {wrong[0]!r:.80}")
        if len(each) != len(prompts):
            raise VeloError(f"{len(prompts)} prompts came with {len(each)} sampling parameters; give one, or one each")
        return [own if isinstance(own, SamplingParams) else _widened(own) for own in each]

    def _job(self, number: int, text: str | None, token_ids: list[int], params: SamplingParams) -> Job:
        stops = frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self.eos_ids)
        if params.seed is None:
            # Calls and prompts differ; the whole program, run again, does not.
            params = evolve(params, seed=hash((self._options.seed, self._calls, number)) % 2**31)
        detokenizer = self._tokenizer if params.stop else None
        return Job(f"{self._calls}-{number}", text, token_ids, params, stops, detokenizer, self._use_cache)


def _options(dtype: str | torch.dtype, options: Mapping[str, object]) -> EngineOptions:
    known = [each.name for each in fields(EngineOptions)]
    if unknown := sorted(options.keys() - set(known)):
        raise TypeError(f"LLM() got an unexpected option {unknown[0]!r}; it takes {', '.join(known)}")
    name = str(dtype).removeprefix("torch.")
    name = NAMES.get(name, name)
    if name != "auto" and name not in DTYPES:
        raise VeloError(f"dtype is {name!r}; it must be auto or one of {', '.join(DTYPES)}")
    return EngineOptions(dtype=name, **options)  # type: ignore[arg-type]


def _widened(params: request.SamplingParams) -> SamplingParams:
    return SamplingParams(**{each.name: getattr(params, each.name) for each in fields(type(params))})

"""Ask llama.cpp's own allocator what a model would take, in a child process that allocates nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import asdict, define, evolve, field

from velollm_core.errors import BackendError, ModelRefused
from velollm_core.figures import Bytes, Interval
from velollm_llamacpp.allocation import breakdown, explicit
from velollm_llamacpp.loadable import loadable

if TYPE_CHECKING:
    from velollm_core.models.breakdown import MemoryBreakdown
    from velollm_core.models.load import LoadSettings
    from velollm_core.models.spec import ModelSpec

SECONDS = 15.0
TRIES = 3
ABORTED = -int(signal.SIGABRT)
_ASSERTION = re.compile(r"(?:/\S*/)?(?P<place>[\w.-]+:\d+): (?P<text>GGML_ASSERT\(.*\) failed|.*)")
_FUNCTION = re.compile(r"^\w+: +")


@define
class Allocator:
    """llama.cpp's allocator in the shared object ``library``; answers are remembered."""

    library: Path
    seconds: float = SECONDS
    _known: dict[tuple[str, LoadSettings], MemoryBreakdown] = field(factory=dict)

    async def memory(self, model: ModelSpec, load: LoadSettings) -> MemoryBreakdown:
        """What ``model`` would take with ``load``, exact where the platform's library gives its sums.

        Raises:
            ModelRefused: llama.cpp would not load it; the text gives its reason.
            BackendError: the child gave no answer, or this build cannot know.
        """
        load = explicit(load)
        key = (model.source, load)
        if key not in self._known:
            self._known[key] = await asyncio.to_thread(self._measure, model, load)
        return self._known[key]

    def _measure(self, model: ModelSpec, load: LoadSettings) -> MemoryBreakdown:
        with loadable(model) as path:
            answer = self._answer(
                model.name, {"library": str(self.library), "model": str(path), "loads": [asdict(load)]}
            )
        slots = load.parallel or 1
        memory = breakdown(answer, slots, _file_weights(model))
        return _as_mapped(memory, _file_weights(model)) if load.mmap else memory

    def _answer(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        for _ in range(TRIES):
            ended = self._run(json.dumps(request))
            if ended.returncode == ABORTED:
                raise ModelRefused(f"{name}: llama.cpp would abort: {_assertion(ended.stderr)}")
            line = ended.stdout.partition("\n")[0]
            if line:
                return _checked(name, json.loads(line))
        reason = ended.stderr.strip().splitlines()[-1:] or [f"exit code {ended.returncode}"]
        raise BackendError(f"llamacpp: the allocator's process died without an answer: {reason[0][:200]}", kind="crash")

    def _run(self, request: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [sys.executable, "-P", "-m", "velollm_llamacpp.measure"],
                input=request,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.seconds,
                check=False,
                # Else gdb attaches to a process that aborts, and may hang.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            )
        except subprocess.TimeoutExpired as error:
            reason = f"llamacpp: the allocator gave no answer in {self.seconds:g} s"
            raise BackendError(reason, kind="timeout") from error


def _checked(name: str, answer: dict[str, Any]) -> dict[str, Any]:
    if "refused" in answer:
        reason = _FUNCTION.sub("", answer["refused"][0])
        raise ModelRefused(f"{name}: llama.cpp refuses it: {reason}")
    if "failed" in answer:
        raise BackendError(f"llamacpp: {answer['failed']}", kind="unsupported")
    return answer


def _assertion(stderr: str) -> str:
    for line in stderr.splitlines():
        if match := _ASSERTION.search(line):
            return f"{match['place']}: {match['text']}"
    return "it gave no reason"


def _file_weights(model: ModelSpec) -> int:
    """Bytes of the tensors that are loaded, as the file holds them."""
    return model.tensor_bytes - sum(layer.bytes for layer in model.layers if layer.nextn)


def _as_mapped(memory: MemoryBreakdown, file_weights: int) -> MemoryBreakdown:
    """Mapped weights take what they take in the file; llama.cpp counts them as read, each tensor padded."""
    host = memory.devices[0]
    loaded = host.weights.value
    if len(memory.devices) > 1 or loaded == file_weights:
        return memory
    interval = Interval(min(file_weights, loaded), max(file_weights, loaded))
    weights = Bytes(loaded, host.weights.basis, interval)
    return evolve(memory, devices=(evolve(host, weights=weights),))

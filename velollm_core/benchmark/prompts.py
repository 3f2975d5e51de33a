"""Prompts that no cache has seen: unique from their first tokens on."""

from __future__ import annotations

import random
import string

from velollm_core.backends.request import Request, SamplingParams
from velollm_core.benchmark.workload import Task, Workload

NONCE_LETTERS = 12
_WORDS = (
    "river stone window market paper garden bridge winter lantern copper valley meadow signal harbour thread engine "
    "candle orchard mirror compass ladder pocket basket feather silver station morning kitchen island hammer pencil "
    "forest blanket corner marble ticket planet anchor velvet whistle"
)


class Prompts:
    """Turns tasks into requests, each with a nonce of its own in front.

    ``run`` is anything that differs from run to run: a server may have kept an earlier run's prompts.
    """

    def __init__(self, workload: Workload, run: str) -> None:
        self._workload = workload
        self._nonces = random.Random(f"{run}/{workload.seed}")

    def request(self, task: Task, max_tokens: int | None = None) -> Request:
        """The next request of ``task``: greedy, of fixed length where the server can hold to it."""
        tokens = task.max_tokens if max_tokens is None else max_tokens
        warm = self._workload.warm_cache
        return Request(
            model=self._workload.model,
            prompt=task.prompt if warm else f"{self.nonce()} {task.prompt}",
            sampling=SamplingParams(max_tokens=tokens, min_tokens=tokens, ignore_eos=True, seed=self._workload.seed),
            cache_prompt=warm,
        )

    def touch(self, text: str = "") -> Request:
        """A request for one token. With nothing but a nonce, what the server counts beyond it is its template's own."""
        sampling = SamplingParams(max_tokens=1, ignore_eos=True)
        return Request(self._workload.model, f"{self.nonce()} {text}".rstrip(), sampling=sampling, cache_prompt=False)

    def nonce(self) -> str:
        """Letters that were never sent before."""
        return "".join(self._nonces.choices(string.ascii_lowercase, k=NONCE_LETTERS))


def filler(characters: int, seed: int = 0) -> str:
    """Plain words, at least ``characters`` long in all, the same for the same seed."""
    rng = random.Random(seed)
    known, words = _WORDS.split(), list[str]()
    length = 0
    while length < characters:
        words.append(rng.choice(known))
        length += len(words[-1]) + 1
    return " ".join(words)

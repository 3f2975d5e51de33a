"""The core loop's executor over llama.cpp in a child process."""

from __future__ import annotations

from collections import deque

from attrs import define, field

from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import BackendError
from velollm_llamacpp.engine.kv_cache import PagedKvCache
from velollm_llamacpp.engine.messages import CacheFull, Draw, Reply, Run, Sampled, Step
from velollm_llamacpp.engine.process import WorkerProcess


@define(eq=False)
class LlamaCppExecutor:
    """Implements `velollm_core.engine.executor.Executor`, one step at a time.

    ``recomputed_tokens`` counts tokens computed again because their cells were not kept, ``full_caches`` the times that
    llama.cpp found no cells where the account had some. ``margins`` holds, where the child reports them, by how much
    each token of a sequence led the second choice.
    """

    process: WorkerProcess
    cache: PagedKvCache
    recomputed_tokens: int = field(init=False, default=0)
    full_caches: int = field(init=False, default=0)
    margins: dict[Sequence, list[float]] = field(init=False, factory=dict)
    _in_flight: deque[tuple[Step, list[Sequence]]] = field(init=False, factory=deque)

    @property
    def depth(self) -> int:
        """1: planning takes a hundredth of what a step of llama.cpp takes, and a stop would cost a step too many."""
        return 1

    def launch(self, output: SchedulerOutput) -> None:
        """Hand the step to the child.

        Raises:
            BackendError: the child is gone.
        """
        operations = self.cache.prepare(output)
        runs: list[Run] = []
        sampled: list[Sequence] = []
        for sequence, position in zip(output.decodes, output.positions, strict=True):
            runs.append(self._run(sequence, position, (sequence.token_ids[position],), samples=1))
            sampled.append(sequence)
        for chunk in output.chunks:
            runs.append(self._run(chunk.sequence, chunk.start, chunk.token_ids, samples=chunk.samples))
            if chunk.samples:
                sampled.append(chunk.sequence)
        step = Step(operations, tuple(runs))
        self._in_flight.append((step, sampled))
        self.process.send(step)

    def collect(self) -> StepResults:
        """The oldest step's tokens; waits for them.

        Raises:
            BackendError: the child died, hung, or could not compute.
        """
        step, sampled = self._in_flight.popleft()
        reply = self._sampled(self.process.receive(), step)
        self.recomputed_tokens += reply.recomputed
        for sequence, margin in zip(sampled, reply.margins, strict=False):
            self.margins.setdefault(sequence, []).append(margin)
        return StepResults(reply.token_ids)

    def close(self) -> None:
        """End the child."""
        self.process.close()

    def _sampled(self, reply: Reply, step: Step) -> Sampled:
        if isinstance(reply, CacheFull):
            # Decode found no cells and changed nothing: what nobody uses gives way, then once more.
            self.full_caches += 1
            reply = self.process.ask(Step(self.cache.give_up_kept(), step.runs))
        if isinstance(reply, CacheFull):
            raise BackendError("llamacpp: the cache has no cells where its account has some: a bug; please report it")
        if not isinstance(reply, Sampled):
            raise BackendError(f"llamacpp: the engine's process answered {type(reply).__name__} to a step")
        return reply

    def _run(self, sequence: Sequence, start: int, token_ids: tuple[int, ...], *, samples: int) -> Run:
        if samples > 1:
            raise BackendError("llamacpp: drafts are not verified by this engine; set max_draft_tokens to 0")
        run = Run(self.cache.id_of(sequence, start), start, token_ids, _draw(sequence, start + len(token_ids), samples))
        self.cache.grow(sequence, start + len(token_ids))
        return run


def _draw(sequence: Sequence, position: int, samples: int) -> Draw | None:
    params = sequence.sampling
    if not samples:
        return None
    early = position - sequence.num_prompt_tokens < params.min_tokens
    without = tuple(sorted(sequence.stop_ids)) if early else ()
    if params.temperature <= 0:
        return Draw(without=without)
    return Draw(params.temperature, params.top_k, params.top_p, params.min_p, seed_of(sequence), position, without)


def seed_of(sequence: Sequence) -> int:
    """The request's own seed, else one of its id: `hash` would differ from run to run."""
    if sequence.sampling.seed is not None:
        return sequence.sampling.seed
    return int.from_bytes(sequence.id.encode()[-8:], "little")

"""A run in progress: one backend, one workload, one clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

from attrs import frozen

from velollm_core.benchmark.block import Block
from velollm_core.benchmark.conditions import observe
from velollm_core.benchmark.exchange import exchange
from velollm_core.benchmark.gpu_watch import GpuWatch
from velollm_core.benchmark.metrics import e2e
from velollm_core.benchmark.noise import judge
from velollm_core.benchmark.patience import Patience
from velollm_core.benchmark.prompts import Prompts, filler
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.warmup import WarmUp, WarmUpRule, is_stable
from velollm_core.interruptible import finishing

if TYPE_CHECKING:
    from velollm_core.backends.backend import Backend
    from velollm_core.backends.request import Request
    from velollm_core.benchmark.circumstances import Circumstances
    from velollm_core.benchmark.listener import Listener
    from velollm_core.benchmark.timing import RequestTiming
    from velollm_core.benchmark.workload import Task, Workload

T = TypeVar("T")

WARM_UP_TASK = "warm_up"
SAMPLE_CHARACTERS = 400
CHARACTERS_A_TOKEN = 4.0


@frozen
class Planned:
    """A request on its way to become a sample."""

    task: str
    index: int
    request: Request


class Session:
    """Sends a workload's requests and keeps what came back, in the order in which it finished."""

    def __init__(self, backend: Backend, workload: Workload, circumstances: Circumstances) -> None:
        self.workload = workload
        self.samples: list[Sample] = []
        self.blocks: list[Block] = []
        self.arm = "measured"
        self.block = 0
        self._backend = backend
        self._under = circumstances
        self._listener = circumstances.listener
        self._prompts = Prompts(workload, secrets.token_hex(8))
        self._began = circumstances.clock()
        self.patience = Patience()
        self.stopped = False

    @property
    def dead(self) -> bool:
        """Whether the last requests all failed, so that more of them would only cost time."""
        return self.patience.is_over(self.now())

    def now(self) -> float:
        """Seconds since the session began."""
        return self._under.clock() - self._began

    async def warm_up(self, rule: WarmUpRule) -> WarmUp:
        """Load the model, then repeat a short request of the first task until ``rule`` says that times are steady.

        Where one request is enough, nothing is sent but that.
        """
        began = self.now()
        self.patience = Patience()
        self._listener.phase("warm-up", rule.max_requests)
        touch = await self._touch() if rule.window > 1 else None
        seconds: list[float] = []
        task = self.workload.tasks[0]
        tokens = min(rule.max_tokens, task.max_tokens)
        while not (stable := is_stable(seconds, rule)) and not self.dead:
            if len(seconds) >= rule.max_requests or self.now() - began > rule.max_seconds:
                break
            planned = Planned(WARM_UP_TASK, len(seconds), self._prompts.request(task, tokens))
            timing = (await self.send(planned, warm_up=True)).timing
            seconds.append(e2e(timing) or 0.0)
        return WarmUp(
            requests=len(seconds),
            stable=stable,
            seconds=self.now() - began,
            rule=str(rule),
            first_seconds=e2e(touch) if touch else None,
            load_seconds=touch.usage.load_seconds if touch else None,
            overhead_tokens=touch.usage.prompt_tokens if touch else None,
        )

    def phase(self, name: str, total: int) -> None:
        """Tell the listener what begins; ``total`` samples, 0 where that is not known."""
        self._listener.phase(name, total)

    async def measure(self, task: Task) -> list[Sample]:
        """Ask ``task`` as often as it says for each user, users side by side; a dead backend ends it early."""
        self._listener.phase(task.name, task.repeats * self.workload.concurrency)
        return await self._ask(task)

    async def measure_block(self, name: str) -> list[Sample]:
        """All tasks one after the other as one block called ``name``."""
        users = self.workload.concurrency
        self._listener.phase(name, sum(task.repeats for task in self.workload.tasks) * users)
        samples, _ = await self.bracket(self._ask_all)
        return samples

    async def rehearse(self) -> list[Sample]:
        """All tasks once more, for nothing but a first impression of their pace."""
        return [
            await self.send(Planned(WARM_UP_TASK, index, self._prompts.request(task)), warm_up=True)
            for index, task in enumerate(self.workload.tasks)
        ]

    async def _touch(self) -> RequestTiming:
        return (await self.send(Planned("touch", 0, self._prompts.touch()), warm_up=True)).timing

    async def count_prompt(self, text: str) -> int | None:
        """Prompt tokens of ``text`` behind a nonce, template included, as the server counts them."""
        sample = await self.send(Planned("touch", 0, self._prompts.touch(text)), warm_up=True)
        return sample.timing.usage.prompt_tokens

    async def characters_a_token(self) -> float:
        """How many characters of our own words make one of the model's tokens; 4 where the server does not count."""
        text = filler(SAMPLE_CHARACTERS)
        nothing, something = await self.count_prompt(""), await self.count_prompt(text)
        if nothing is None or something is None or something <= nothing:
            return CHARACTERS_A_TOKEN
        return len(text) / (something - nothing)

    @property
    def prompts(self) -> Prompts:
        """What makes this session's prompts unlike any other's."""
        return self._prompts

    def restart(self, listener: Listener) -> None:
        """Forget all samples so far, and let ``listener`` hear those to come."""
        self.samples, self.blocks, self.block = [], [], 0
        self._listener = listener

    async def _ask_all(self) -> list[Sample]:
        return [sample for task in self.workload.tasks for sample in await self._ask(task)]

    async def _ask(self, task: Task) -> list[Sample]:
        users = self.workload.concurrency
        total = task.repeats * users
        planned = (Planned(task.name, index, self._prompts.request(task)) for index in range(total))
        first = len(self.samples)
        if users == 1:
            await self._user(planned)
        else:
            await asyncio.gather(*(self._user(planned) for _ in range(users)))
        return self.samples[first:]

    async def until_stopped(self, work: Callable[[], Awaitable[object]]) -> None:
        """Do ``work``; if it is cancelled, note that, and go on with what there is."""
        try:
            await work()
        except asyncio.CancelledError:
            self.stopped = True
            if (task := asyncio.current_task()) is not None:
                task.uncancel()

    async def bracket(self, work: Callable[[], Awaitable[T]], *, to_its_end: bool = True) -> tuple[T, Block]:
        """Do ``work`` as a block of its own: a look at the machine before it and after it.

        A first Ctrl-C lets it end, if it is to run ``to_its_end``.
        """
        with finishing() if to_its_end else nullcontext():
            return await self._bracket(work)

    async def _bracket(self, work: Callable[[], Awaitable[T]]) -> tuple[T, Block]:
        before, began = await asyncio.to_thread(observe, sources=self._under.sources), self.now()
        watch = self._watch()
        try:
            outcome = await work()
        finally:
            gpus = await asyncio.to_thread(watch.stop) if watch else ()
        after = await asyncio.to_thread(observe, closing=True, sources=self._under.sources)
        block = Block(self.block, self.arm, began, before, after, judge(before, after, gpus), gpus)
        self.blocks.append(block)
        self._listener.block(block)
        self.block += 1
        return outcome, block

    def _watch(self) -> GpuWatch | None:
        reader = self._under.gpu_reader()
        if reader is None:
            return None
        watch = GpuWatch(reader)
        watch.start()
        return watch

    async def _user(self, planned: Iterator[Planned]) -> None:
        for each in planned:
            if self.dead:
                return
            await self.send(each)

    async def send(
        self,
        planned: Planned,
        *,
        warm_up: bool = False,
        intended: float | None = None,
        hear: Callable[[str], None] | None = None,
    ) -> Sample:
        """Send one request now, and keep what comes of it.

        ``intended`` is when it was meant to be sent; ``hear`` is told the answer piece by piece.
        """
        timing = await exchange(
            self._backend, planned.request, self.now, intended=intended, limit=self._under.limit, hear=hear
        )
        tokens = planned.request.sampling.max_tokens
        sample = Sample(planned.task, planned.index, tokens, timing, self.arm, self.block, warm_up)
        self.patience.see(timing.failure, self.now())
        self.samples.append(sample)
        self._listener.sample(sample)
        return sample

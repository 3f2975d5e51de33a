"""The engine behind asyncio: streams, aborts, refusals, failures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from random import Random

import pytest

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.async_engine import AsyncEngine, EngineBusy, EngineStopped
from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.results import StepResults
from velollm_core.engine.sequence import FinishReason, Sequence
from velollm_core.errors import OutOfBlocks, VeloError
from velollm_core.testing.cache_executor import CacheExecutor, expected_tokens

LAYOUT = KVCacheLayout((KVGroup(1, 4),), 4)


class SlowExecutor(CacheExecutor):
    """Takes a moment for each step, so that others get a word in; may break at a given step."""

    def __init__(self, *, pause: float = 0.001, breaks_at: int | None = None, error: Exception | None = None) -> None:
        super().__init__(LAYOUT, lateness=1)
        self.pause, self.breaks_at, self.error = pause, breaks_at, error
        self.closed = False

    def launch(self, output: SchedulerOutput) -> None:
        if output.step == self.breaks_at and self.error:
            raise self.error
        super().launch(output)

    def collect(self) -> StepResults:
        time.sleep(self.pause)
        return super().collect()

    def close(self) -> None:
        self.closed = True


def with_engine(
    scenario: Callable[[AsyncEngine], Coroutine[None, None, None]],
    *,
    executor: SlowExecutor | None = None,
    blocks: int = 200,
    max_waiting: int = 1024,
    limits: SchedulerLimits | None = None,
) -> EngineLoop:
    """Run ``scenario`` and close the engine; its scheduler must be left empty."""
    manager = default_block_manager(LAYOUT, blocks * LAYOUT.bytes_per_block[0])
    scheduler = default_scheduler(limits or SchedulerLimits(8, 64, 400), manager)
    loop = EngineLoop(scheduler, executor or SlowExecutor())
    engine = AsyncEngine(loop, max_waiting=max_waiting)
    try:
        asyncio.run(scenario(engine))
    finally:
        engine.close()
    return loop


async def collect(engine: AsyncEngine, sequence: Sequence) -> tuple[list[int], FinishReason | None]:
    """All tokens of one sequence, and why it ended."""
    tokens: list[int] = []
    reason = None
    async with aclosing(engine.stream(sequence)) as batches:
        async for batch in batches:
            tokens += batch.token_ids
            reason = batch.finish_reason
    return tokens, reason


async def settled(engine: AsyncEngine) -> None:
    """Wait until nothing runs."""
    for _ in range(2000):
        stats = await engine.stats()
        if not stats.running + stats.waiting + stats.leaving:
            return
        await asyncio.sleep(0.002)
    raise AssertionError(stats)


def ask(name: str, prompt: list[int], count: int) -> Sequence:
    return Sequence(name, prompt, SamplingParams(max_tokens=count))


def test_many_streams_get_their_own_tokens() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        prompts = [[index, 1, 2] for index in range(20)]
        answers = await asyncio.gather(*(collect(engine, ask(str(p), p, 10 + p[0])) for p in prompts))
        for prompt, (tokens, reason) in zip(prompts, answers, strict=True):
            assert tokens == expected_tokens(prompt, 10 + prompt[0])
            assert reason == "length"

    loop = with_engine(scenario)
    assert loop.scheduler.blocks.usage().used == 0


def test_a_failure_noticed_outside_of_a_step_ends_it() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        waiting = asyncio.create_task(collect(engine, ask("a", [1, 2], 300)))
        while not (await engine.stats()).running:
            await asyncio.sleep(0.001)
        engine.fail(VeloError("the device is gone"))
        with pytest.raises(VeloError, match="the device is gone"):
            await waiting
        with pytest.raises(VeloError, match="the device is gone"):
            await engine.stats()
        assert str(engine.failure) == "the device is gone"
        engine.fail(VeloError("too late"))

    executor = SlowExecutor()
    with_engine(scenario, executor=executor)
    assert executor.closed


def test_leaving_early_aborts() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        sequence = ask("a", [1, 2], 300)
        async with aclosing(engine.stream(sequence)) as batches:
            async for _ in batches:
                break
        await settled(engine)
        assert sequence.finish_reason == "abort"
        assert len(sequence.output_token_ids) < 300

    assert with_engine(scenario).scheduler.blocks.usage().used == 0


def test_cancelling_a_reader_aborts() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        sequence = ask("a", [1, 2], 300)
        reader = asyncio.create_task(collect(engine, sequence))
        await asyncio.sleep(0.02)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await settled(engine)
        assert sequence.finish_reason == "abort"

    with_engine(scenario)


def test_a_slow_reader_gets_several_steps_at_once_and_loses_nothing() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        sizes: list[int] = []
        tokens: list[int] = []
        async with aclosing(engine.stream(ask("a", [3], 40))) as batches:
            async for batch in batches:
                sizes.append(len(batch.token_ids))
                tokens += batch.token_ids
                await asyncio.sleep(0.02)
        assert tokens == expected_tokens([3], 40)
        assert max(sizes) > 1

    with_engine(scenario)


def test_what_can_never_fit_is_refused_and_others_go_on() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        with pytest.raises(OutOfBlocks, match="500"):
            await collect(engine, ask("long", [1] * 100, 400))
        assert await collect(engine, ask("short", [1], 2)) == (expected_tokens([1], 2), "length")

    with_engine(scenario)


def test_a_full_queue_says_so() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        readers = []
        for index in range(4):
            readers.append(asyncio.create_task(collect(engine, ask(str(index), [index], 300))))
            while (await engine.stats()).running < min(index + 1, 2):
                await asyncio.sleep(0.001)
        with pytest.raises(EngineBusy, match="2 requests wait already"):
            await collect(engine, ask("one too many", [1], 2))
        await asyncio.gather(*readers)

    with_engine(scenario, max_waiting=2, limits=SchedulerLimits(2, 64, 400))


def test_a_failing_executor_ends_every_stream_with_its_reason() -> None:
    executor = SlowExecutor(breaks_at=6, error=VeloError("the device is gone"))

    async def scenario(engine: AsyncEngine) -> None:
        readers = [collect(engine, ask(str(index), [index], 60)) for index in range(3)]
        for outcome in await asyncio.gather(*readers, return_exceptions=True):
            assert isinstance(outcome, VeloError)
            assert str(outcome) == "the device is gone"
        with pytest.raises(VeloError, match="the device is gone"):
            await collect(engine, ask("later", [1], 2))
        assert engine.failure is not None

    with_engine(scenario, executor=executor)
    assert executor.closed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_executor_hangs_nobody() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        with pytest.raises(EngineStopped, match="broke down"):
            await collect(engine, ask("a", [1], 60))

    with_engine(scenario, executor=SlowExecutor(breaks_at=3, error=ZeroDivisionError()))


def test_closing_ends_open_streams() -> None:
    async def scenario(engine: AsyncEngine) -> None:
        reader = asyncio.create_task(collect(engine, ask("a", [1], 300)))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineStopped, match="was closed"):
            await reader
        with pytest.raises(EngineStopped, match="was closed"):
            await engine.stats()

    with_engine(scenario)


def test_a_reader_whose_event_loop_died_is_aborted() -> None:
    async def begin(engine: AsyncEngine, sequence: Sequence) -> None:
        stream = engine.stream(sequence)
        await anext(stream)
        orphans.append(stream)

    orphans: list[object] = []

    async def scenario(engine: AsyncEngine) -> None:
        sequence = ask("orphan", [1], 300)
        other = asyncio.new_event_loop()
        await asyncio.to_thread(other.run_until_complete, begin(engine, sequence))
        other.close()
        await settled(engine)
        assert sequence.finish_reason == "abort"

    with_engine(scenario)


def test_a_storm_with_aborts_leaks_nothing() -> None:
    random = Random(0)

    async def one(engine: AsyncEngine, index: int) -> None:
        prompt = [0] * random.randint(0, 20) + [index % 50]
        count = random.randint(1, 40)
        await asyncio.sleep(random.random() * 0.2)
        if index % 10 < 3:
            async with aclosing(engine.stream(ask(str(index), prompt, count))) as batches:
                async for _ in batches:
                    if random.random() < 0.2:
                        return
            return
        assert await collect(engine, ask(str(index), prompt, count)) == (expected_tokens(prompt, count), "length")

    async def scenario(engine: AsyncEngine) -> None:
        await asyncio.gather(*(one(engine, index) for index in range(150)))
        await settled(engine)

    loop = with_engine(scenario, executor=SlowExecutor(pause=0), blocks=40)
    assert loop.scheduler.blocks.usage().used == 0
    assert not loop.scheduler.has_work

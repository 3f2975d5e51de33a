"""The engine behind asyncio, in a thread and in a process of its own: streams, aborts, refusals, failures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from random import Random
from typing import Literal

import psutil
import pytest

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.async_engine import AsyncEngine
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.process_engine import ProcessEngine
from velollm_core.engine.sequence import FinishReason, Sequence
from velollm_core.engine.streams import EngineBusy, EngineStopped, StreamingEngine
from velollm_core.errors import OutOfBlocks, PluginError, VeloError
from velollm_core.testing.cache_executor import expected_tokens
from velollm_core.testing.slow_engine import SlowEngine, collect

Place = Literal["thread", "process"]
Scenario = Callable[[StreamingEngine], Coroutine[None, None, None]]


@pytest.fixture(params=["thread", "process"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where the loop runs."""
    place: Place = request.param
    return place


def begin(place: Place, wanted: SlowEngine, max_waiting: int = 1024) -> StreamingEngine:
    if place == "thread":
        return AsyncEngine(wanted.open()[0], max_waiting=max_waiting)
    engine = ProcessEngine(SlowEngine.open, wanted, max_waiting=max_waiting)
    assert engine.ready() == "slow"
    return engine


def with_engine(
    place: Place, scenario: Scenario, wanted: SlowEngine | None = None, *, max_waiting: int = 1024
) -> None:  # fmt: skip
    """Run ``scenario`` and close the engine; unless it failed, it must be left empty."""
    engine = begin(place, wanted or SlowEngine(), max_waiting)

    async def whole() -> None:
        await scenario(engine)
        if engine.failure is None:
            await settled(engine)
            assert (await engine.usage()).used == 0

    try:
        asyncio.run(whole())
    finally:
        engine.close()
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


async def settled(engine: StreamingEngine) -> None:
    """Wait until nothing runs."""
    for _ in range(2000):
        stats = await engine.stats()
        if not stats.running + stats.waiting + stats.leaving:
            return
        await asyncio.sleep(0.002)
    raise AssertionError(stats)


async def running(engine: StreamingEngine, count: int) -> None:
    """Wait until ``count`` sequences run."""
    while (await engine.stats()).running < count:
        await asyncio.sleep(0.001)


def ask(name: str, prompt: list[int], count: int, parent: Sequence | None = None) -> Sequence:
    return Sequence(name, prompt, SamplingParams(max_tokens=count), parent=parent)


def test_many_streams_get_their_own_tokens(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        prompts = [[index, 1, 2] for index in range(20)]
        answers = await asyncio.gather(*(collect(engine, ask(str(p), p, 10 + p[0])) for p in prompts))
        for prompt, (tokens, reason) in zip(prompts, answers, strict=True):
            assert tokens == expected_tokens(prompt, 10 + prompt[0])
            assert reason == "length"

    with_engine(place, scenario)


def test_what_is_known_of_a_sequence_comes_along(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        first = ask("first", [7] * 12, 4)
        await collect(engine, first)
        again = ask("again", [7] * 12, 4)
        await collect(engine, again)
        assert (first.num_cached, again.num_cached) == (0, 8)
        assert again.is_finished
        assert again.output_token_ids == expected_tokens([7] * 12, 4)

    with_engine(place, scenario)


def test_several_answers_share_a_prompt(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        parent = ask("0", [9] * 60, 8)
        family = [parent, *(ask(str(index), [9] * 60, 8, parent) for index in range(1, 4))]
        answers = await asyncio.gather(*(collect(engine, each) for each in family))
        assert answers == [(expected_tokens([9] * 60, 8), "length")] * 4
        assert (await engine.stats()).preemptions == 0

    # Not even two prompts would fit side by side.
    with_engine(place, scenario, SlowEngine(blocks=30))


def test_a_failure_noticed_outside_of_a_step_ends_it() -> None:
    loop, _ = SlowEngine().open()
    engine = AsyncEngine(loop)

    async def scenario() -> None:
        waiting = asyncio.create_task(collect(engine, ask("a", [1, 2], 300)))
        await running(engine, 1)
        engine.fail(VeloError("the device is gone"))
        with pytest.raises(VeloError, match="the device is gone"):
            await waiting
        with pytest.raises(VeloError, match="the device is gone"):
            await engine.stats()
        assert str(engine.failure) == "the device is gone"
        engine.fail(VeloError("too late"))

    asyncio.run(scenario())
    engine.close()
    assert loop.executor.closed  # type: ignore[attr-defined]


def test_leaving_early_aborts(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        sequence = ask("a", [1, 2], 300)
        async with aclosing(engine.stream(sequence)) as batches:
            async for _ in batches:
                break
        await settled(engine)
        assert sequence.finish_reason == "abort"
        assert len(sequence.output_token_ids) < 300

    with_engine(place, scenario)


def test_cancelling_a_reader_aborts(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        sequence = ask("a", [1, 2], 300)
        reader = asyncio.create_task(collect(engine, sequence))
        await asyncio.sleep(0.02)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await settled(engine)
        assert sequence.finish_reason == "abort"

    with_engine(place, scenario)


def test_a_slow_reader_gets_several_steps_at_once_and_loses_nothing(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        sizes: list[int] = []
        tokens: list[int] = []
        async with aclosing(engine.stream(ask("a", [3], 40))) as batches:
            async for batch in batches:
                sizes.append(len(batch.token_ids))
                tokens += batch.token_ids
                await asyncio.sleep(0.02)
        assert tokens == expected_tokens([3], 40)
        assert max(sizes) > 1

    with_engine(place, scenario)


def test_what_can_never_fit_is_refused_and_others_go_on(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        with pytest.raises(OutOfBlocks, match="500"):
            await collect(engine, ask("long", [1] * 100, 400))
        assert await collect(engine, ask("short", [1], 2)) == (expected_tokens([1], 2), "length")

    with_engine(place, scenario)


def test_a_full_queue_says_so(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        readers = []
        for index in range(4):
            readers.append(asyncio.create_task(collect(engine, ask(str(index), [index], 300))))
            await running(engine, min(index + 1, 2))
        with pytest.raises(EngineBusy, match="2 requests wait already"):
            await collect(engine, ask("one too many", [1], 2))
        await asyncio.gather(*readers)

    with_engine(place, scenario, SlowEngine(limits=SchedulerLimits(2, 64, 400)), max_waiting=2)


def test_a_request_of_several_is_not_turned_away_in_part(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        leader = ask("0", [5], 30)
        followers = [ask(str(index), [5], 30) for index in range(1, 6)]
        reading = [asyncio.create_task(collect(engine, leader))]
        await asyncio.sleep(0)
        reading += [asyncio.create_task(_led(engine, each, leader)) for each in followers]
        assert await asyncio.gather(*reading) == [(expected_tokens([5], 30), "length")] * 6

    with_engine(place, scenario, SlowEngine(limits=SchedulerLimits(1, 64, 400)), max_waiting=1)


async def _led(engine: StreamingEngine, sequence: Sequence, leader: Sequence) -> tuple[list[int], FinishReason | None]:
    tokens: list[int] = []
    reason = None
    async with aclosing(engine.stream(sequence, leader)) as batches:
        async for batch in batches:
            tokens += batch.token_ids
            reason = batch.finish_reason
    return tokens, reason


def test_a_failing_executor_ends_every_stream_with_its_reason(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        readers = [collect(engine, ask(str(index), [index], 60)) for index in range(3)]
        for outcome in await asyncio.gather(*readers, return_exceptions=True):
            assert isinstance(outcome, VeloError)
            assert str(outcome) == "the device is gone"
        with pytest.raises(VeloError, match="the device is gone"):
            await collect(engine, ask("later", [1], 2))
        assert engine.failure is not None

    with_engine(place, scenario, SlowEngine(breaks_at=6, error=VeloError("the device is gone")))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_bug_in_the_executor_hangs_nobody(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        with pytest.raises(EngineStopped, match="broke down"):
            await collect(engine, ask("a", [1], 60))

    with_engine(place, scenario, SlowEngine(breaks_at=3, error=ZeroDivisionError()))


def test_closing_ends_open_streams(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        reader = asyncio.create_task(collect(engine, ask("a", [1], 300)))
        await asyncio.sleep(0.02)
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineStopped, match="was closed"):
            await reader
        with pytest.raises(EngineStopped, match="was closed"):
            await engine.stats()

    with_engine(place, scenario)


def test_a_reader_whose_event_loop_died_is_aborted(place: Place) -> None:
    async def begin(engine: StreamingEngine, sequence: Sequence) -> None:
        stream = engine.stream(sequence)
        await anext(stream)
        orphans.append(stream)

    orphans: list[object] = []

    async def scenario(engine: StreamingEngine) -> None:
        sequence = ask("orphan", [1], 300)
        other = asyncio.new_event_loop()
        await asyncio.to_thread(other.run_until_complete, begin(engine, sequence))
        other.close()
        await settled(engine)
        assert sequence.finish_reason == "abort"

    with_engine(place, scenario)


def test_a_reader_whose_event_loop_died_with_news_unread_is_aborted(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        sequence = ask("orphan", [1], 300)
        other, stream = asyncio.new_event_loop(), engine.stream(sequence)
        first = await asyncio.to_thread(other.run_until_complete, anext(stream))
        while len(sequence.output_token_ids) < len(first.token_ids) + 3:
            await asyncio.sleep(0.001)
        other.close()
        await settled(engine)
        assert sequence.finish_reason == "abort"

    with_engine(place, scenario)


def test_an_id_that_is_taken_is_refused_and_its_owner_goes_on(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        owner = asyncio.create_task(collect(engine, ask("a", [1], 60)))
        await running(engine, 1)
        with pytest.raises(VeloError, match="in the engine already"):
            await collect(engine, ask("a", [2], 60))
        assert await asyncio.wait_for(owner, 5) == (expected_tokens([1], 60), "length")

    with_engine(place, scenario)


def test_a_part_that_cannot_tell_its_counters_costs_nobody_an_answer(place: Place) -> None:
    engine = begin(place, SlowEngine(uncounted=PluginError("a plugin: failed in usage()")))

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(PluginError, match="failed in usage"):
                await engine.usage()
        assert await collect(engine, ask("a", [1], 5)) == (expected_tokens([1], 5), "length")

    asyncio.run(scenario())
    engine.close()


def test_an_answer_that_is_whole_is_read_though_the_engine_was_closed(place: Place) -> None:
    async def scenario(engine: StreamingEngine) -> None:
        sequence = ask("a", [1], 5)
        async with aclosing(engine.stream(sequence)) as batches:
            tokens = [*(await anext(batches)).token_ids]
            while sequence.finish_reason is None:
                await asyncio.sleep(0.001)
            await asyncio.to_thread(engine.close)
            async for batch in batches:
                tokens += batch.token_ids
        assert tokens == expected_tokens([1], 5)

    with_engine(place, scenario)


def test_a_storm_with_aborts_leaks_nothing(place: Place) -> None:
    random = Random(0)

    async def one(engine: StreamingEngine, index: int) -> None:
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

    async def scenario(engine: StreamingEngine) -> None:
        await asyncio.gather(*(one(engine, index) for index in range(150)))

    with_engine(place, scenario, SlowEngine(pause=0, blocks=40))

"""Loads through the real scheduler in simulated time."""

from __future__ import annotations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from velollm_core.engine.defaults import default_block_manager, default_scheduler
from velollm_core.engine.layout import KVCacheLayout
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loads import Arrival, Lengths, burst, ramp, replay, steady
from velollm_core.engine.simulated import SimulatedExecutor
from velollm_core.engine.simulator import Simulation, Slo, simulate, sustainable_rate
from velollm_core.engine.step_times import StepSample, StepTimes
from velollm_core.errors import VeloError

LAYOUT = KVCacheLayout.uniform(2, 2, 32)
TIMES = StepTimes(fixed=0.01, per_token=1e-4, per_context_token=1e-6)
SHORT = Lengths(prompt=(20, 60), output=(5, 40))


def run(
    load: tuple[Arrival, ...], *, blocks: int = 2000, depth: int = 1, host: float = 0.0, num_seqs: int = 32
) -> Simulation:
    manager = default_block_manager(LAYOUT, blocks * LAYOUT.bytes_per_block[0])
    scheduler = default_scheduler(SchedulerLimits(num_seqs, 512, 1024), manager)
    return simulate(load, scheduler, SimulatedExecutor(TIMES, depth=depth, host_seconds=host))


def test_one_request_takes_what_its_steps_take() -> None:
    result = run((Arrival(3.0, 100, 3),))
    (request,) = result.requests
    steps = [TIMES.seconds(100, 100), TIMES.seconds(1, 101), TIMES.seconds(1, 102)]
    assert request.ttft == pytest.approx(steps[0])
    assert request.tpot == pytest.approx((steps[1] + steps[2]) / 2)
    assert request.latency == pytest.approx(result.seconds) == pytest.approx(sum(steps))
    assert result.busy == pytest.approx(1.0)
    assert (result.steps, result.output_tokens) == (3, 3)


def test_a_single_token_has_no_time_per_token() -> None:
    (request,) = run((Arrival(0.0, 10, 1),)).requests
    assert request.tpot is None
    assert request.meets(Slo(ttft=1.0, tpot=0.0))


def test_the_same_seed_gives_the_same_answer() -> None:
    assert run(steady(20, 5, SHORT, seed=1)) == run(steady(20, 5, SHORT, seed=1))
    assert run(steady(20, 5, SHORT, seed=1)) != run(steady(20, 5, SHORT, seed=2))


@pytest.mark.parametrize("load", [burst(100, SHORT), steady(30, 4, SHORT), ramp(1, 60, 4, SHORT)])
def test_every_request_is_served_or_refused(load: tuple[Arrival, ...]) -> None:
    too_long = Arrival(1.0, 1000, 100)
    result = run((*load, too_long))
    assert len(result.requests) == len(load)
    (reason,) = result.refused
    assert "1100" in reason


def test_scarce_blocks_preempt_and_still_serve() -> None:
    load = burst(40, Lengths((20, 60), (100, 200)))
    result = run(load, blocks=60)
    assert result.preemptions > 0
    assert result.peak_utilisation > 0.9
    assert {request.arrival for request in result.requests} == set(load)
    assert result.seconds > run(load).seconds


def test_a_shared_prefix_is_computed_once() -> None:
    shared = evolve(SHORT, shared_prefix=512, prompt=(513, 600))
    result = run(steady(2, 20, shared))
    cached = [request.cached_tokens for request in result.requests]
    assert cached[0] == 0
    assert set(cached[1:]) == {512}
    assert result.hit_tokens == sum(cached)


def test_running_ahead_hides_the_hosts_time() -> None:
    load = burst(8, SHORT)
    alone = run(load).seconds
    assert run(load, host=0.005).seconds == pytest.approx(alone * 1.4, rel=0.2)
    assert run(load, host=0.005, depth=2).seconds < alone * 1.15


def test_a_ramp_grows() -> None:
    load = ramp(0, 40, 100, SHORT)
    early = sum(arrival.at < 50 for arrival in load)
    assert len(load) == pytest.approx(2000, rel=0.1)
    assert early / len(load) == pytest.approx(0.25, abs=0.05)


def test_a_replay_keeps_order_and_changes_speed() -> None:
    recorded = [Arrival(2.0, 5, 6), Arrival(1.0, 3, 4)]
    assert replay(recorded, speed=2.0) == (Arrival(0.5, 3, 4), Arrival(1.0, 5, 6))


def test_the_sustainable_rate_is_where_the_promise_breaks() -> None:
    slo = Slo(ttft=0.5, tpot=0.02)

    def at(rate: float) -> Simulation:
        return run(steady(rate, 30, SHORT))

    rate = sustainable_rate(at, slo, 1.0)
    assert 5 < rate < 500
    assert at(rate).keeps(slo)
    assert not at(rate * 1.5).keeps(slo)
    assert sustainable_rate(at, slo, 300.0) == pytest.approx(rate, rel=0.1)
    assert sustainable_rate(at, Slo(ttft=1e-6), 1.0) == 0.0


def test_what_is_refused_breaks_the_promise() -> None:
    result = run((Arrival(0.0, 10, 5), Arrival(0.0, 2000, 5)))
    assert not result.keeps(Slo(ttft=10, tpot=10))
    assert result.goodput(Slo(ttft=10, tpot=10)) == pytest.approx(1 / result.seconds)
    assert run(()).keeps(Slo())


@given(
    truth=st.builds(StepTimes, st.floats(1e-3, 0.1), st.floats(1e-6, 1e-3), st.floats(1e-9, 1e-6)),
    sizes=st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 300_000)), min_size=6, max_size=30, unique=True),
)
def test_measured_steps_are_explained(truth: StepTimes, sizes: list[tuple[int, int]]) -> None:
    samples = [StepSample(tokens, context, truth.seconds(tokens, context)) for tokens, context in sizes]
    fitted = StepTimes.fit(samples)
    assert min(fitted.fixed, fitted.per_token, fitted.per_context_token) >= 0
    worst = max(sample.seconds for sample in samples)
    for sample in samples:
        assert abs(fitted.seconds(sample.tokens, sample.context) - sample.seconds) < 0.05 * worst


def test_a_step_on_a_device_reads_while_it_computes() -> None:
    times = StepTimes.roofline(
        weight_bytes=16e9, kv_bytes_per_token=131072, flops_per_token=16e9, bandwidth=3e12, flops=6e14
    )
    assert times.seconds(1, 0) == times.seconds(200, 0) == pytest.approx(16 / 3000)
    assert times.seconds(2000, 0) == pytest.approx(16e9 / 6e14 * 2000)
    assert times.seconds(1, 1000) - times.seconds(1, 0) == pytest.approx(1000 * 131072 / 3e12)


@pytest.mark.parametrize(
    "build",
    [
        lambda: StepTimes.fit([]),
        lambda: steady(0, 10, SHORT),
        lambda: steady(1, 0, SHORT),
        lambda: ramp(-1, 2, 10, SHORT),
        lambda: replay([], speed=0),
    ],
)
def test_nonsense_is_refused(build: object) -> None:
    with pytest.raises(VeloError):
        build()  # type: ignore[operator]

"""What users of a plan would feel: its cache and speeds put through the real scheduler, in simulated time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import evolve, frozen

from velollm_core.benchmark.percentiles import Percentiles, summarise
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loads import Arrival, steady
from velollm_core.engine.parts import CORE, EngineParts
from velollm_core.engine.simulated import SimulatedExecutor
from velollm_core.engine.simulator import Simulation, Slo, simulate, sustainable_rate
from velollm_core.engine.step_times import StepTimes
from velollm_core.errors import VeloError
from velollm_core.models.pick import gpu_shares
from velollm_core.models.placement import place
from velollm_core.models.roofline import decode_rate, prefill_rate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velollm_core.figures import Rate
    from velollm_core.models.devices import Device
    from velollm_core.models.pick import Pick
    from velollm_core.models.spec import ModelSpec
    from velollm_core.planning.simulation_asked import SimulationAsked

BLOCK_TOKENS = 16
DEEP = 4096
TRIED_STEPS = 4000


@frozen
class SimulatedPlan:
    """How a load fares with a plan. Times are in seconds, ``throughput`` in tokens, ``goodput`` in requests a second.

    ``kept`` says whether ``slo`` was kept; ``sustainable_rate`` is the most requests a second, of the same lengths, at
    which it would be. ``utilisation`` is the share of the cache in use, ``busy`` that of the time.
    """

    load: str
    requests: int
    refused: tuple[str, ...]
    seconds: float
    steps: int
    ttft: Percentiles | None
    tpot: Percentiles | None
    latency: Percentiles | None
    throughput: float
    goodput: float
    slo: Slo
    kept: bool
    sustainable_rate: float
    preemptions: int
    utilisation: float
    peak_utilisation: float
    busy: float
    cached_tokens: int
    step_times: StepTimes
    limits: SchedulerLimits


def simulate_plan(
    spec: ModelSpec,
    devices: Sequence[Device],
    pick: Pick,
    asked: SimulationAsked,
    parts: EngineParts = CORE,
) -> SimulatedPlan:
    """Put what was ``asked`` through a scheduler with the cache, the slots and the predicted speeds of ``pick``.

    ``parts`` make that scheduler, one for each run.

    Raises:
        VeloError: no speed is predicted, so there is nothing to simulate with.
    """
    times = step_times(spec, devices, pick)
    asked = asked.within(pick.context)
    limits = SchedulerLimits(
        max_num_seqs=pick.slots,
        max_num_batched_tokens=max(pick.load.batch, pick.slots),
        max_model_len=max(2, pick.context),
    )
    cache = max(pick.memory.context, pick.context)

    def run(load: Sequence[Arrival]) -> Simulation:
        group = KVGroup(len(spec.main_layers), 1)
        layout = KVCacheLayout((group,), BLOCK_TOKENS)
        # One block more: the null block holds nothing.
        blocks = parts.allocate_kv(layout, -(-cache // BLOCK_TOKENS) * BLOCK_TOKENS + BLOCK_TOKENS)
        return simulate(load, parts.schedule(limits, blocks), SimulatedExecutor(times))

    # Long enough for a queue to show, short enough to try many rates.
    tried = min(asked.seconds, max(3 * asked.slo.ttft, TRIED_STEPS * times.seconds(pick.slots, 0)))

    def at(rate: float) -> Simulation:
        return run(steady(rate, tried, asked.lengths, seed=asked.seed))

    found = run(asked.arrivals())
    served = len(found.requests) / (found.seconds * found.busy) if found.requests else 0.0
    return _summary(found, asked, sustainable_rate(at, asked.slo, served) if served else 0.0, times, limits)


def step_times(spec: ModelSpec, devices: Sequence[Device], pick: Pick) -> StepTimes:
    """The time of a step as the roofline predicts it, moved by what earlier measurements here have taught.

    Raises:
        VeloError: a bandwidth or an arithmetic peak is unknown.
    """
    load = pick.load
    placement = place(spec, load, gpu_shares(tuple(devices)))
    alone = decode_rate(spec, load, placement, devices, 0)
    deep = decode_rate(spec, load, placement, devices, DEEP)
    prompt = prefill_rate(spec, load, placement, devices, load.ubatch)
    if alone is None or deep is None or prompt is None or pick.start.decode is None:
        raise VeloError(
            f"{spec.name}: no speed is predicted for this machine, so nothing can be simulated; "
            "`velollm detect` says what it could not see"
        )
    usual = decode_rate(spec, load, placement, devices, pick.start.depth)
    taught = usual.value / pick.start.decode.value if usual else 1.0
    overlapped = placement.output != "host"
    token = 1 / prompt.value
    fixed = _seconds(alone) if overlapped else max(0.0, _seconds(alone) - token)
    times = StepTimes(fixed, token, max(0.0, _seconds(deep) - _seconds(alone)) / DEEP, overlapped)
    return evolve(times, fixed=times.fixed * taught, per_context_token=times.per_context_token * taught)


def _seconds(rate: Rate) -> float:
    return 1 / rate.value


def _summary(
    found: Simulation, asked: SimulationAsked, rate: float, times: StepTimes, limits: SchedulerLimits
) -> SimulatedPlan:
    return SimulatedPlan(
        load=asked.load,
        requests=len(found.requests),
        refused=found.refused,
        seconds=found.seconds,
        steps=found.steps,
        ttft=summarise(request.ttft for request in found.requests),
        tpot=summarise(request.tpot for request in found.requests if request.tpot is not None),
        latency=summarise(request.latency for request in found.requests),
        throughput=found.throughput,
        goodput=found.goodput(asked.slo),
        slo=asked.slo,
        kept=found.keeps(asked.slo),
        sustainable_rate=rate,
        preemptions=found.preemptions,
        utilisation=found.utilisation,
        peak_utilisation=found.peak_utilisation,
        busy=found.busy,
        cached_tokens=found.hit_tokens,
        step_times=times,
        limits=limits,
    )

"""What the real scheduler would do with a load, in simulated time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Row

from attrs import define, field, frozen

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.loads import Arrival
from velollm_core.engine.loop import EngineLoop, RetiredStep
from velollm_core.engine.scheduling import Scheduler
from velollm_core.engine.sequence import Sequence
from velollm_core.engine.simulated import SimulatedExecutor
from velollm_core.errors import OutOfBlocks


@frozen
class Slo:
    """What users are promised: seconds to the first token, seconds for each token after it, to ``share`` of them."""

    ttft: float = 1.0
    tpot: float = 0.1
    share: float = 0.99


@frozen
class SimulatedRequest:
    """How one request fared, in seconds; ``ttft`` counts from its arrival, ``tpot`` is None for a single token."""

    arrival: Arrival
    ttft: float
    tpot: float | None
    latency: float
    preemptions: int
    cached_tokens: int

    def meets(self, slo: Slo) -> bool:
        """Whether the promise was kept."""
        return self.ttft <= slo.ttft and (self.tpot is None or self.tpot <= slo.tpot)


@frozen
class Simulation:
    """A load, gone through. ``seconds`` is from the first arrival to the last token.

    ``utilisation`` of blocks is a mean over the steps, ``peak_utilisation`` its highest value, ``busy`` the share of
    time that the device worked. ``refused`` are the reasons of those that could never fit.
    """

    requests: tuple[SimulatedRequest, ...]
    refused: tuple[str, ...]
    seconds: float
    steps: int
    preemptions: int
    swaps: int
    utilisation: float
    peak_utilisation: float
    busy: float
    hit_tokens: int

    @property
    def output_tokens(self) -> int:
        """Tokens produced."""
        return sum(request.arrival.output_tokens for request in self.requests)

    @property
    def throughput(self) -> float:
        """Tokens produced a second."""
        return self.output_tokens / self.seconds if self.seconds else 0.0

    def goodput(self, slo: Slo) -> float:
        """Requests a second whose promise was kept."""
        return sum(request.meets(slo) for request in self.requests) / self.seconds if self.seconds else 0.0

    def keeps(self, slo: Slo) -> bool:
        """Whether enough of all requests, the refused among them, were served as promised."""
        asked = len(self.requests) + len(self.refused)
        return not asked or sum(request.meets(slo) for request in self.requests) >= slo.share * asked


@define(eq=False)
class _Watch:
    """Follows a run: when each sequence arrived and gave its first token."""

    executor: SimulatedExecutor
    arrivals: dict[str, Arrival] = field(factory=dict)
    first: dict[str, float] = field(factory=dict)
    done: list[SimulatedRequest] = field(factory=list)
    utilisation: float = 0.0
    peak: float = 0.0
    steps: int = 0

    def take(self, retired: RetiredStep, used: float) -> None:
        """Note what a step that is over has brought."""
        self.steps += 1
        self.utilisation += used
        self.peak = max(self.peak, used)
        now = self.executor.now
        for chunk in retired.output.chunks:
            if chunk.samples:
                self.first.setdefault(chunk.sequence.id, now)
        for sequence in retired.ended:
            self.done.append(self._finish(sequence, now))

    def _finish(self, sequence: Sequence, now: float) -> SimulatedRequest:
        arrival, first = self.arrivals[sequence.id], self.first[sequence.id]
        rest = arrival.output_tokens - 1
        return SimulatedRequest(
            arrival=arrival,
            ttft=first - arrival.at,
            tpot=(now - first) / rest if rest else None,
            latency=now - arrival.at,
            preemptions=sequence.num_preemptions,
            cached_tokens=sequence.num_cached,
        )


def simulate(load: Iterable[Arrival], scheduler: Scheduler, executor: SimulatedExecutor) -> Simulation:
    """Put ``load`` through ``scheduler``; the same load gives the same answer, to the last digit."""
    loop, watch = EngineLoop(scheduler, executor), _Watch(executor)
    pending = sorted(load, key=lambda arrival: arrival.at)
    begin = executor.now = pending[0].at if pending else 0.0
    refused: list[str] = []
    index = 0
    total = scheduler.blocks.usage().total
    while index < len(pending) or not loop.is_idle:
        if loop.is_idle:
            executor.wait_until(pending[index].at)
        while index < len(pending) and pending[index].at <= executor.now:
            sequence = _sequence(index, pending[index])
            watch.arrivals[sequence.id] = pending[index]
            index += 1
            try:
                scheduler.add(sequence)
            except OutOfBlocks as error:
                refused.append(str(error))
        retired = loop.step()
        if retired is not None:
            watch.take(retired, 1 - scheduler.blocks.num_free_blocks / total)
    return _summary(watch, refused, executor.now - begin, scheduler)


def sustainable_rate(run: Callable[[float], Simulation], slo: Slo, start: float, *, within: float = 0.03) -> float:
    """The most requests a second, within 3%, at which ``run`` still keeps the promise; 0 where none does.

    ``run`` simulates a steady load of the rate it is given. From ``start``, a guess, the rate is doubled or halved
    until one is kept and one is not; then the gap between them is halved.
    """

    def keeps(rate: float) -> bool:
        found = run(rate)
        return bool(found.requests) and found.keeps(slo)

    low = high = start
    while keeps(high):
        if high > start * 1024:
            return high
        low, high = high, high * 2
    while low == high or not keeps(low):
        if low < start / 1024:
            return 0.0
        low, high = low / 2, low
    while high - low > within * low:
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
    return low


def _sequence(index: int, arrival: Arrival) -> Sequence:
    """Token ids that no two requests share beyond the common prefix."""
    own = arrival.prompt_tokens - arrival.shared_prefix
    tokens = [0] * arrival.shared_prefix + [index + 2] * own
    sampling = SamplingParams(max_tokens=arrival.output_tokens)
    use_cache = arrival.shared_prefix > 0
    return Sequence(str(index), tokens, sampling, priority=arrival.priority, use_cache=use_cache)


def _summary(watch: _Watch, refused: Row[str], seconds: float, scheduler: Scheduler) -> Simulation:
    stats = scheduler.stats()
    return Simulation(
        requests=tuple(watch.done),
        refused=tuple(refused),
        seconds=seconds,
        steps=watch.steps,
        preemptions=stats.preemptions,
        swaps=stats.swaps,
        utilisation=watch.utilisation / watch.steps if watch.steps else 0.0,
        peak_utilisation=watch.peak,
        busy=watch.executor.busy_seconds / seconds if seconds else 0.0,
        hit_tokens=scheduler.blocks.usage().hit_tokens,
    )

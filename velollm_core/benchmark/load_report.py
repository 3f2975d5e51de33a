"""What a load found out beside the figures of its requests: rates, lateness, steadiness, goodput."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from velollm_core.benchmark.load import Load, Slo
from velollm_core.benchmark.metrics import e2e, tpot, ttft
from velollm_core.benchmark.percentiles import Percentiles, summarise
from velollm_core.benchmark.sample import Sample
from velollm_core.benchmark.steady import (
    Saturation,
    Window,
    find_window,
    judge_saturation,
    most_in_flight,
    output_rates,
)
from velollm_core.benchmark.timing import RequestTiming


@frozen
class LoadReport:
    """Rates are per second: ``planned_rate`` of the intended sends (None in a closed loop), ``sent_rate`` of the real.

    ``lateness`` is real minus intended send: what the generator itself added. The last four are those of the steady
    window, or of the whole run where none was found; ``goodput`` counts requests that kept to the whole ``slo``.
    """

    sent: int
    planned_rate: float | None
    sent_rate: float | None
    lateness: Percentiles | None
    most_in_flight: int
    window: Window
    saturation: Saturation
    requests_per_second: float | None
    tokens_per_second: float | None
    goodput: float | None
    slo: Slo | None


def report_load(load: Load, samples: Sequence[Sample], users: int) -> LoadReport:
    """The report on all ``samples`` of one load."""
    window = find_window(samples, users, open_loop=load.arrivals is not None)
    inside = in_window(samples, window)
    answered = [sample for sample in inside if sample.counts]
    seconds = _seconds(inside, window)
    intended = sorted(sample.timing.intended for sample in samples)
    sent = sorted(sample.timing.sent for sample in samples)
    kept = [sample for sample in answered if load.slo is not None and keeps(sample.timing, load.slo)]
    rates = output_rates(_whole(samples), window.start, window.end, 1) if window.steady else []
    whole = sum(sample.timing.completion_tokens or 0 for sample in answered)
    return LoadReport(
        sent=len(samples),
        planned_rate=_rate(intended) if load.arrivals is not None else None,
        sent_rate=_rate(sent),
        lateness=summarise(sample.timing.sent - sample.timing.intended for sample in samples),
        most_in_flight=most_in_flight(samples),
        window=window,
        saturation=judge_saturation(samples, window, open_loop=load.arrivals is not None),
        requests_per_second=len(answered) / seconds if seconds else None,
        tokens_per_second=rates[0] if rates else (whole / seconds if seconds else None),
        goodput=len(kept) / seconds if seconds and load.slo is not None else None,
        slo=load.slo,
    )


def in_window(samples: Sequence[Sample], window: Window) -> list[Sample]:
    """The samples sent within the steady window; all of them where there is none."""
    if not window.steady:
        return list(samples)
    return [sample for sample in samples if window.start <= sample.timing.intended <= window.end]


def keeps(timing: RequestTiming, slo: Slo) -> bool:
    """Whether a request kept to everything that ``slo`` asks for; what could not be measured did not."""
    for limit, value in ((slo.ttft, ttft(timing)), (slo.tpot, tpot(timing)), (slo.e2e, e2e(timing))):
        if limit is not None and (value is None or value > limit):
            return False
    return True


def _whole(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.counts and sample.timing.arrivals]


def _seconds(samples: Sequence[Sample], window: Window) -> float:
    if window.steady:
        return window.seconds
    ends = [sample.timing.ended for sample in samples]
    return max(ends) - min(sample.timing.sent for sample in samples) if ends else 0.0


def _rate(times: Sequence[float]) -> float | None:
    """Events a second of sorted ``times``: gaps, not events, fill the span."""
    return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 and times[-1] > times[0] else None

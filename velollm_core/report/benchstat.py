"""The samples as lines of Go's benchmark format, for `benchstat` and what else reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from velollm_core.benchmark.metrics import METRICS, WHOLE, Metric
from velollm_core.benchmark.sample import Sample
from velollm_core.report.dossier import Dossier
from velollm_core.report.markup import clean

UNITS = {
    "ttft": "ttft-sec",
    "tpot": "tpot-sec",
    "e2e": "e2e-sec",
    "decode_rate": "decode-tokens/sec",
    "prefill_rate": "prefill-tokens/sec",
}


def to_benchstat(dossier: Dossier) -> str:
    """One line for each request that counts. `benchstat -col side FILE` sets the sides against each other."""
    return "\n".join(_lines(dossier)) + "\n"


def _lines(dossier: Dossier) -> Iterator[str]:
    for metric in METRICS:
        if metric.name in UNITS:
            yield f"Unit {UNITS[metric.name]} better={'lower' if metric.unit == 's' else 'higher'}"
    yield ""
    yield "toolchain: velollm"
    for fact in dossier.facts:
        if not fact.differs:
            yield f"{re.sub('[^a-z0-9]+', '-', fact.name.lower()).strip('-')}: {_value(fact.values[0])}"
    for line in dossier.lines:
        yield ""
        yield f"side: {_value(line.name)}"
        for sample in line.steady:
            if sample.counts and (measured := list(_measured(sample))):
                yield f"BenchmarkRequest/task={_word(sample.task)} 1 {' '.join(measured)}"


def _measured(sample: Sample) -> Iterator[str]:
    for metric in METRICS:
        if metric.name in UNITS and (value := _figure(metric, sample)) is not None:
            yield f"{value:.6g} {UNITS[metric.name]}"


def _figure(metric: Metric, sample: Sample) -> float | None:
    return None if metric.name in WHOLE and sample.short else metric.of(sample.timing)


def _word(text: str) -> str:
    return re.sub(r"[\s/=]+", "_", clean(text)) or "_"


def _value(text: str) -> str:
    return " ".join(clean(text).split())

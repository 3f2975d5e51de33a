"""A verdict for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from velollm_core.views.figures import percent, ratio_interval

if TYPE_CHECKING:
    from velollm_core.benchmark.comparison import Comparison

DETAILS = {
    "speed": "speed of the work",
    "decode_rate": "decode tokens/s",
    "prefill_rate": "prefill tokens/s",
    "ttft_speed": "TTFT",
}
METHODS = {
    "student_t": "{count} pairs, Student's t",
    "sign_flip": "{count} pairs, signed-rank test",
    "welch": "{count} values on the smaller side, Welch's t, not interleaved",
    "none": "one value has no interval",
}


def comparison_lines(comparison: Comparison, first: str, second: str) -> Iterator[str]:
    """The verdict, the figures behind it, and what more evidence would take."""
    yield f"Verdict: {verdict_text(comparison, first, second)}"
    ratio = f"{second} runs at {comparison.ratio:.3f} × the speed of {first}"
    method = METHODS[comparison.method].format(count=comparison.pairs)
    yield f"{ratio}; {comparison.confidence:.0%} interval {ratio_interval(comparison.interval)}; {method}."
    if comparison.minimum_detectable_effect is not None and comparison.verdict != "equivalent":
        count, unit = comparison.pairs, "values" if comparison.method == "welch" else "pairs"
        line = f"At this noise {count} {unit} show a difference of {percent(comparison.minimum_detectable_effect)}"
        if comparison.pairs_needed is not None and comparison.pairs_needed > count:
            line += f"; {comparison.pairs_needed} {unit} would show {percent(comparison.delta, 0)}"
        yield f"{line}."
    for note in comparison.notes:
        yield f"Note: {note}."


def comparison_table(comparisons: Iterable[Comparison]) -> Table:
    """One line for each figure: ratio, interval, verdict."""
    table = Table("", "Ratio", "95% interval", "Verdict", box=None, pad_edge=False)
    for each in comparisons:
        label = DETAILS.get(each.metric, each.metric)
        table.add_row(label, f"{each.ratio:.3f}", ratio_interval(each.interval), each.verdict.replace("_", " "))
    return table


def verdict_text(comparison: Comparison, first: str, second: str) -> str:
    """The verdict in a sentence."""
    change = percent(abs(comparison.ratio - 1))
    return {
        "faster": f"faster. {second} is {change} faster than {first}.",
        "slower": f"slower. {second} is {change} slower than {first}.",
        "equivalent": f"equivalent. {first} and {second} are equal within ±{percent(comparison.delta, 0)}.",
        "not_enough_evidence": f"not enough evidence. {_lack(comparison)}",
    }[comparison.verdict]


def _lack(comparison: Comparison) -> str:
    if comparison.interval is None:
        return "A single value says nothing about its spread: measure for longer."
    return "The interval holds both a gain and a loss."

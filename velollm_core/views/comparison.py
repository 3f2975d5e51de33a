"""A verdict for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from velollm_core.views.figures import percent, ratio_interval

if TYPE_CHECKING:
    from velollm_core.benchmark.comparison import Comparison

DETAILS = {"decode_rate": "decode tokens/s", "prefill_rate": "prefill tokens/s", "ttft_speed": "TTFT"}
METHODS = {
    "student_t": "Student's t",
    "sign_flip": "sign-flip test",
    "welch": "Welch's t, not interleaved",
    "none": "one pair only",
}


def comparison_lines(comparison: Comparison, first: str, second: str) -> Iterator[str]:
    """The verdict, the figures behind it, and what more evidence would take."""
    yield f"Verdict: {verdict_text(comparison, first, second)}"
    ratio = f"{second} runs at {comparison.ratio:.3f} × the speed of {first}"
    held = f"{comparison.confidence:.0%} interval {ratio_interval(comparison.interval)}"
    yield f"{ratio}; {held}; {comparison.pairs} pairs, {METHODS[comparison.method]}."
    if comparison.minimum_detectable_effect is not None and comparison.verdict != "equivalent":
        effect = percent(comparison.minimum_detectable_effect)
        line = f"At this noise {comparison.pairs} pairs show a difference of {effect}"
        if comparison.pairs_needed is not None and comparison.pairs_needed > comparison.pairs:
            line += f"; {comparison.pairs_needed} pairs would show {percent(comparison.delta, 0)}"
        yield f"{line}."
    for note in comparison.notes:
        yield f"Note: {note}."


def verdict_text(comparison: Comparison, first: str, second: str) -> str:
    """The verdict in a sentence."""
    change = percent(abs(comparison.ratio - 1))
    return {
        "faster": f"faster. {second} is {change} faster than {first}.",
        "slower": f"slower. {second} is {change} slower than {first}.",
        "equivalent": f"equivalent. {first} and {second} are equal within ±{percent(comparison.delta, 0)}.",
        "not_enough_evidence": "not enough evidence. The interval holds both a gain and a loss, or touches 1.",
    }[comparison.verdict]

"""The gate that no figure passes above what the machine's memory and arithmetic allow."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Plausible = Literal["plausible", "slow", "impossible", "unknown"]

ABOVE = 1.05
BELOW = 0.2


@frozen
class Plausibility:
    """A ``measured`` speed against its ceiling, both in tokens a second; ``basis`` says what the ceiling stands on.

    It is that of decoding, unless prefill alone is impossible.
    """

    verdict: Plausible
    measured: float | None
    ceiling: float | None
    basis: str
    text: str


def judge_prefill(prefill: float | None, ceiling: float | None, basis: str) -> Plausibility | None:
    """An impossible prefill speed, both in tokens a second; None where it is possible, or unknown on either side."""
    if prefill is None or ceiling is None or prefill <= ABOVE * ceiling:
        return None
    text = (
        f"impossible, prompts at {prefill / ceiling:.2f} × the {ceiling:.0f} tokens/s that this machine can compute "
        f"({basis}): a cache, the wrong model, or a wrong table"
    )
    return Plausibility("impossible", prefill, ceiling, basis, text)


def judge_decode(decode: float | None, ceiling: float | None, basis: str) -> Plausibility:
    """Above 1.05 × the ceiling is impossible, below a fifth of it suspicious; None on either side is unknown."""
    if decode is None:
        return Plausibility("unknown", decode, ceiling, basis, "no decode speed was measured")
    if ceiling is None:
        return Plausibility("unknown", decode, ceiling, basis, f"there is no ceiling to hold it against: {basis}")
    share, limit = decode / ceiling, f"the {ceiling:.0f} tokens/s that memory allows ({basis})"
    if share > ABOVE:
        text = f"impossible, {share:.2f} × {limit}: a cache, speculation, the wrong model, or a wrong table"
        return Plausibility("impossible", decode, ceiling, basis, text)
    if share < BELOW:
        text = f"only {share:.2g} × {limit}: are some layers on the processor, or is the machine busy?"
        return Plausibility("slow", decode, ceiling, basis, text)
    return Plausibility("plausible", decode, ceiling, basis, f"{share:.0%} of {limit}")

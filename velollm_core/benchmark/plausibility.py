"""The gate that no figure passes above what the memory's bandwidth allows."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Plausible = Literal["plausible", "slow", "impossible", "unknown"]

ABOVE = 1.05
BELOW = 0.2


@frozen
class Plausibility:
    """Measured decode speed against its ceiling, both in tokens a second; ``basis`` says what the ceiling stands on."""

    verdict: Plausible
    decode: float | None
    ceiling: float | None
    basis: str | None
    text: str


def judge_decode(decode: float | None, ceiling: float | None, basis: str | None = None) -> Plausibility:
    """Above 1.05 × the ceiling is impossible, below a fifth of it suspicious; None on either side is unknown."""
    if decode is None or ceiling is None:
        text = "no ceiling is known for this machine and model" if decode else "no decode speed was measured"
        return Plausibility("unknown", decode, ceiling, basis, text)
    share = decode / ceiling
    if share > ABOVE:
        text = f"impossible ({share:.2f} × the ceiling): a cache, speculation, the wrong model, or a wrong table"
        return Plausibility("impossible", decode, ceiling, basis, text)
    if share < BELOW:
        text = f"only {share:.0%} of the ceiling: are some layers on the processor, or is the machine busy?"
        return Plausibility("slow", decode, ceiling, basis, text)
    return Plausibility("plausible", decode, ceiling, basis, f"{share:.0%} of what the memory bandwidth allows")

"""The speed that a model should reach."""

from __future__ import annotations

from attrs import frozen

from velollm_core.figures import Rate


@frozen
class Prediction:
    """Tokens a second that a model should reach, by the roofline; None where the bandwidth is unknown.

    ``prefill`` and ``decode`` are of one sequence at a depth of ``depth`` tokens.
    """

    prefill: Rate | None
    decode: Rate | None
    depth: int

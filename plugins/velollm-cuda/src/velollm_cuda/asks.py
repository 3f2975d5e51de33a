"""What sequences ask of the sampler beyond their temperature."""

from __future__ import annotations

from attrs import frozen

from velollm_core.backends.request import SamplingParams


@frozen
class Asks:
    """Which parts of the sampler run: each combination has graphs of its own, so that nobody pays for others' wishes.

    ``restricted`` is top-k, top-p or min-p; ``penalized`` a penalty; ``delayed`` an end that may not come yet
    (``min_tokens``); ``logprobs`` the chosen tokens' log probabilities, ``ranked`` those of the likeliest.
    """

    restricted: bool = False
    penalized: bool = False
    delayed: bool = False
    logprobs: bool = False
    ranked: bool = False

    @classmethod
    def of(cls, params: SamplingParams, *, delayed: bool = False) -> Asks:
        """What a sequence with ``params`` asks; ``delayed`` where one of its ends may not come yet."""
        return cls(
            restricted=params.temperature > 0 and bool(params.top_k > 0 or params.top_p < 1 or params.min_p > 0),
            penalized=params.repetition_penalty != 1 or bool(params.frequency_penalty or params.presence_penalty),
            delayed=delayed,
            logprobs=params.logprobs,
            ranked=params.logprobs and params.top_logprobs > 0,
        )

    def __or__(self, other: Asks) -> Asks:
        return Asks(
            self.restricted or other.restricted,
            self.penalized or other.penalized,
            self.delayed or other.delayed,
            self.logprobs or other.logprobs,
            self.ranked or other.ranked,
        )


NOTHING = Asks()

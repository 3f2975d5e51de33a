"""What is read off a request's timing, each with the formula that is printed beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from velollm_core.benchmark.timing import RequestTiming

TOGETHER = 3e-5
"""Seconds: chunks closer than this were waiting in the socket together."""


@frozen
class Metric:
    """One figure of a request; ``of`` gives None where the timing lacks what the ``formula`` needs."""

    name: str
    unit: str
    formula: str
    of: Callable[[RequestTiming], float | None]


def ttft(timing: RequestTiming) -> float | None:
    """Time to first token, seconds, from the intended send: a late client counts."""
    return None if timing.first is None else timing.first - timing.intended


def ttft_sent(timing: RequestTiming) -> float | None:
    """Time to first token, seconds, from the real send: the server's share."""
    return None if timing.first is None else timing.first - timing.sent


def ttfo(timing: RequestTiming) -> float | None:
    """Time to the first token that is not reasoning, seconds, from the intended send."""
    return None if timing.first_output is None else timing.first_output - timing.intended


def tpot(timing: RequestTiming) -> float | None:
    """Time per output token, seconds, of the tokens that came after the first; None where all came at once."""
    produced = timing.completion_tokens
    if timing.first is None or timing.last is None or produced is None:
        return None
    together = came_with_first(timing.arrivals)
    later = produced - (sum(timing.chunk_tokens[:together]) if timing.chunk_tokens else together)
    return (timing.last - timing.first) / later if later > 0 and timing.last > timing.first else None


def came_with_first(arrivals: Sequence[float]) -> int:
    """How many chunks were read in one go with the first: what waits in the socket tells nothing of the server."""
    count = 1
    while count < len(arrivals) and arrivals[count] - arrivals[count - 1] < TOGETHER:
        count += 1
    return count


def clumped(timings: Sequence[RequestTiming]) -> float | None:
    """The share of chunks that were read in one go with the one before; None where there are no gaps."""
    between = [gap for timing in timings for gap in gaps(timing)]
    return sum(gap < TOGETHER for gap in between) / len(between) if between else None


def e2e(timing: RequestTiming) -> float | None:
    """Seconds from the intended send to the last token."""
    return None if timing.last is None else timing.last - timing.intended


def e2e_sent(timing: RequestTiming) -> float | None:
    """Seconds from the real send to the last token: the server's share."""
    return None if timing.last is None else timing.last - timing.sent


def decode_rate(timing: RequestTiming) -> float | None:
    """Tokens a second of this request while it decodes."""
    seconds = tpot(timing)
    return 1 / seconds if seconds else None


def prefill_rate(timing: RequestTiming) -> float | None:
    """Prompt tokens a second until the first token, by our clock: queue, HTTP and one decode step included."""
    seconds, tokens = ttft_sent(timing), timing.uncached_tokens
    return tokens / seconds if seconds and tokens else None


def server_prefill_rate(timing: RequestTiming) -> float | None:
    """Prompt tokens a second by the server's own clock."""
    seconds, tokens = timing.usage.prefill_seconds, timing.uncached_tokens
    return tokens / seconds if seconds and tokens else None


def server_decode_rate(timing: RequestTiming) -> float | None:
    """Generated tokens a second by the server's own clock and its own counting."""
    seconds, tokens = timing.usage.decode_seconds, timing.usage.completion_tokens
    return tokens / seconds if seconds and tokens else None


def gaps(timing: RequestTiming) -> list[float]:
    """Inter-token latencies: seconds between one chunk and the next. A chunk may carry several tokens."""
    return [later - earlier for earlier, later in zip(timing.arrivals, timing.arrivals[1:], strict=False)]


def tokens_per_chunk(timings: Sequence[RequestTiming]) -> float | None:
    """Mean tokens of a chunk, without which an ITL says nothing; None where nothing was counted."""
    counted = [(timing.completion_tokens, len(timing.arrivals)) for timing in timings if timing.completion_tokens]
    chunks = sum(number for _, number in counted)
    return sum(tokens or 0 for tokens, _ in counted) / chunks if chunks else None


WHOLE = ("e2e", "e2e_sent")
"""The figures that only answers of full length have."""

METRICS = (
    Metric("ttft", "s", "first chunk − intended send", ttft),
    Metric("ttft_sent", "s", "first chunk − real send", ttft_sent),
    Metric("ttfo", "s", "first chunk that is not reasoning − intended send", ttfo),
    Metric("tpot", "s", "(last − first chunk) / (tokens − tokens that came with the first)", tpot),
    Metric("e2e", "s", "last chunk − intended send, answers of full length", e2e),
    Metric("e2e_sent", "s", "last chunk − real send, answers of full length", e2e_sent),
    Metric("decode_rate", "tokens/s", "1 / TPOT, per request", decode_rate),
    Metric("prefill_rate", "tokens/s", "(prompt − cached tokens) / (first chunk − real send)", prefill_rate),
    Metric("server_prefill_rate", "tokens/s", "(prompt − cached tokens) / server's prefill time", server_prefill_rate),
    Metric("server_decode_rate", "tokens/s", "tokens / server's decode time", server_decode_rate),
)

ITL_FORMULA = "gaps between chunks, all requests pooled"
SYSTEM_RATE_FORMULA = "output tokens of all requests / (last chunk − first send)"

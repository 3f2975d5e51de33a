"""What a caller asks of one prompt."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from velollm_core.backends import request
from velollm_core.errors import VeloError

INFINITE = float("inf")


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


@frozen(kw_only=True)
class SamplingParams(request.SamplingParams):
    """The core's parameters, and what only an engine of one's own can be asked for.

    ``temperature`` 0 is greedy. ``n`` answers share the prompt's work; each draws its own tokens. Without ``seed``
    the engine's own decides. Any of ``stop_token_ids`` ends an answer like the model's end of text does, which
    ``ignore_eos`` switches off. ``stop`` is a string or several; the text ends before it.
    """

    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = field(default=(), converter=_texts)
    stop_token_ids: tuple[int, ...] = field(default=(), converter=tuple)

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            VeloError: names the parameter.
        """
        checks = (
            ("n", self.n, self.n >= 1, "at least 1"),
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "at least 1"),
            ("min_tokens", self.min_tokens, 0 <= self.min_tokens <= self.max_tokens, "between 0 and max_tokens"),
            ("temperature", self.temperature, 0 <= self.temperature < INFINITE, "0 or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1"),
            ("top_k", self.top_k, self.top_k >= -1, "0 (all tokens) or more"),
            ("min_p", self.min_p, 0 <= self.min_p <= 1, "between 0 and 1"),
            ("repetition_penalty", self.repetition_penalty, 0 < self.repetition_penalty < INFINITE, "above 0"),
            ("frequency_penalty", self.frequency_penalty, abs(self.frequency_penalty) <= 2, "between -2 and 2"),
            ("presence_penalty", self.presence_penalty, abs(self.presence_penalty) <= 2, "between -2 and 2"),
            ("stop", self.stop, all(self.stop), "without empty strings"),
        )
        for name, value, fine, wanted in checks:
            if not fine:
                raise VeloError(f"{name} is {value!r}; it must be {wanted}")

"""What a caller asks of one prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import SupportsFloat, SupportsIndex

from attrs import field, frozen

from velollm_core.backends import request
from velollm_core.errors import VeloError

INFINITE = float("inf")
MOST_STOP_IDS = 16
TOP = f"between 0 and {request.MOST_RANKED}, and 0 without logprobs"


WHOLE, NUMBER = "a whole number", "a number"
KINDS: Mapping[str, str] = {
    "n": WHOLE, "max_tokens": WHOLE, "min_tokens": WHOLE, "top_logprobs": WHOLE, "top_k": WHOLE,
    "temperature": NUMBER, "top_p": NUMBER,
    "min_p": NUMBER, "repetition_penalty": NUMBER, "frequency_penalty": NUMBER, "presence_penalty": NUMBER,
}  # fmt: skip


def _texts(value: str | Iterable[str] | None) -> tuple[str, ...]:
    items: Iterable[object] = _items((value,) if isinstance(value, str) else value)
    texts = tuple(each for each in items if isinstance(each, str))
    if texts != items:
        raise VeloError(f"stop is {value!r}; it must be a string, or several")
    return texts


def _ids(value: Iterable[int] | None) -> tuple[int, ...]:
    items = _items(None if isinstance(value, str) else value)
    ids = tuple(int(each) for each in items if isinstance(each, SupportsIndex))
    if ids != items or isinstance(value, str):
        raise VeloError(f"stop_token_ids is {value!r}; it must be a list of token ids")
    return ids


def _items(value: object) -> tuple[object, ...]:
    """None for none; what is no collection is left as it is, for the caller to refuse."""
    return () if value is None else tuple(value) if isinstance(value, Iterable) else (value, None)


@frozen(kw_only=True)
class SamplingParams(request.SamplingParams):
    """The core's parameters, and what only an engine of one's own can be asked for.

    ``temperature`` 0 is greedy. ``n`` answers share the prompt's work; each draws its own tokens. Without ``seed``
    the engine's own decides. Any of ``stop_token_ids`` ends an answer like the model's end of text does, which
    ``ignore_eos`` switches off. ``stop`` is a string or several; the text ends before it. None asks for none of them.
    """

    seed: int | None = None
    n: int = 1
    stop: tuple[str, ...] = field(default=(), converter=_texts)
    stop_token_ids: tuple[int, ...] = field(default=(), converter=_ids)

    def __attrs_post_init__(self) -> None:
        """Refuse what has no meaning.

        Raises:
            VeloError: names the parameter.
        """
        self._check_kinds()
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
            ("top_logprobs", self.top_logprobs, 0 <= self.top_logprobs <= request.MOST_RANKED * self.logprobs, TOP),
            ("stop", self.stop, all(self.stop), "without empty strings"),
            (
                "stop_token_ids",
                self.stop_token_ids,
                len(self.stop_token_ids) <= MOST_STOP_IDS,
                f"at most {MOST_STOP_IDS}",
            ),
        )
        for name, value, fine, wanted in checks:
            if not fine:
                raise VeloError(f"{name} is {value!r}; it must be {wanted}")

    def _check_kinds(self) -> None:
        """An engine must not break down over a text where it counts."""
        for name, wanted in KINDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, SupportsIndex if wanted is WHOLE else SupportsFloat):
                raise VeloError(f"{name} is {value!r}; it must be {wanted}")
        if not (self.seed is None or isinstance(self.seed, SupportsIndex)):
            raise VeloError(f"seed is {self.seed!r}; it must be {WHOLE}, or None")
        for name in ("ignore_eos", "logprobs"):
            if not isinstance(getattr(self, name), bool):
                raise VeloError(f"{name} is {getattr(self, name)!r}; it must be True or False")

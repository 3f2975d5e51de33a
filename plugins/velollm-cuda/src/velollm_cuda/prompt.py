"""The shapes that a prompt may have: text, token ids, or either in a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral

from velollm_core.errors import VeloError

Prompt = str | Sequence[int] | Mapping[str, object]


def is_one(prompts: object) -> bool:
    """Whether ``prompts`` is one prompt, not a list of them."""
    if isinstance(prompts, (str, Mapping)):
        return True
    return isinstance(prompts, Sequence) and bool(prompts) and _are_ids(prompts)


def text_of(prompt: Prompt) -> str | None:
    """The text of a prompt, None where there is none."""
    value = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
    return value if isinstance(value, str) else None


def ids_of(prompt: Prompt, text: str | None) -> list[int] | None:
    """The token ids of a prompt, None where its ``text`` has to be cut into them.

    Raises:
        VeloError: it has neither.
    """
    given = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else None if text is not None else prompt
    if given is None and text is not None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, str) or not _are_ids(given):
        raise VeloError(f"a prompt is a text or a list of token ids, found {prompt!r:.80}")
    return list(map(int, given))


def check_ids(prompts: Sequence[Sequence[int]], vocabulary: int) -> None:
    """Refuse an id beyond the embedding: it would end in a device's fault, which no program survives.

    Raises:
        VeloError: names the id.
    """
    for prompt in prompts:
        if prompt and not 0 <= min(prompt) <= max(prompt) < vocabulary:
            found = min(prompt) if min(prompt) < 0 else max(prompt)
            raise VeloError(f"token id {found} in a prompt; this model has {vocabulary} tokens, from 0")


def _are_ids(values: Sequence[object]) -> bool:
    # A list of plain numbers is known by its types alone: this is asked of every token of every prompt.
    return set(map(type, values)) == {int} or all(isinstance(each, Integral) for each in values)

"""The shapes that a prompt may have: text, token ids, or either in a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral

from velollm_core.errors import VeloError

Prompt = str | Sequence[int] | Mapping[str, object]


def listed(prompts: object) -> list[Prompt]:
    """``prompts`` as a list: one prompt may stand alone.

    Raises:
        VeloError: it is neither a prompt nor several.
    """
    prompts = _plain(prompts)
    if isinstance(prompts, (str, Mapping)) or (isinstance(prompts, Sequence) and prompts and _are_ids(prompts)):
        return [prompts]
    if not isinstance(prompts, Iterable):
        raise VeloError(f"a prompt is a text or a list of token ids, found {prompts!r:.80}")
    return list(prompts)


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
    given = _plain(given)
    if given is None and text is not None:
        return None
    if not isinstance(given, Sequence) or isinstance(given, str) or not _are_ids(given):
        raise VeloError(f"a prompt is a text or a list of token ids, found {prompt!r:.80}")
    if not given:
        raise VeloError("a prompt needs at least one token, found none")
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


def conversations(messages: object) -> list[Sequence[Mapping[str, object]]]:
    """``messages`` as a list of conversations: one may stand alone.

    Raises:
        VeloError: they are none; a template would make something of anything.
    """
    several = messages if isinstance(messages, Sequence) else [messages]
    several = [several] if several and isinstance(several[0], Mapping) else several
    for each in several:
        fine = isinstance(each, Sequence) and all(isinstance(turn, Mapping) and "role" in turn for turn in each)
        if not fine or not each or isinstance(each, str):
            raise VeloError(f"a conversation is a list of messages, each with role and content, found {each!r:.80}")
    return list(several)


def _plain(values: object) -> object:
    """Arrays and tensors as lists."""
    tolist = getattr(values, "tolist", None)
    return tolist() if callable(tolist) else values


def _are_ids(values: Sequence[object]) -> bool:
    # A list of plain numbers is known by its types alone: this is asked of every token of every prompt.
    return set(map(type, values)) == {int} or all(isinstance(each, Integral) for each in values)

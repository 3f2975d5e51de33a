"""What a request asks for, read out of its JSON and checked."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Literal, cast

from attrs import frozen

from velollm_core.backends.request import MOST_RANKED, Message, SamplingParams
from velollm_core.serving.fields import Fields, flag, number, section, text, whole
from velollm_core.serving.refusals import Refusal

Ability = Literal["penalties", "logprobs"]
MOST_CHOICES = 128
MOST_ANSWERS = 1024
MOST_STOPS = 16
LARGEST = 2**31 - 1
NEUTRAL: tuple[tuple[str, object], ...] = (
    ("allowed_token_ids", []), ("bad_words", []), ("best_of", 1), ("echo", False), ("functions", []), ("grammar", ""),
    ("guided_choice", []), ("guided_grammar", ""), ("guided_json", {}), ("guided_regex", ""), ("json_schema", {}),
    ("logit_bias", {}), ("mirostat", 0), ("prompt_logprobs", 0), ("repeat_penalty", 1), ("structured_outputs", {}),
    ("suffix", ""), ("tools", []), ("typical_p", 1),
)  # fmt: skip
"""Fields that this server cannot do anything about, and the value that asks for nothing."""
OF_SOME: Mapping[Ability, tuple[tuple[str, object], ...]] = {
    "penalties": (("frequency_penalty", 0), ("presence_penalty", 0), ("repetition_penalty", 1)),
    "logprobs": (("logprobs", False), ("top_logprobs", 0)),
}
"""Fields that some engines can do, and the value that asks for nothing."""

Prompt = str | tuple[int, ...]


@frozen
class Asked:
    """A request of either endpoint. ``max_tokens`` None means as many as the context allows.

    ``prompts`` are texts or token ids; a chat has one, given by ``messages`` and its template's ``switches``. Each gets
    ``n`` answers.
    """

    model: str
    prompts: tuple[Prompt, ...]
    messages: tuple[Message, ...]
    sampling: SamplingParams
    max_tokens: int | None
    n: int
    stream: bool
    include_usage: bool
    priority: int
    use_cache: bool
    cache_salt: str
    stop_token_ids: frozenset[int]
    switches: Fields

    @property
    def is_chat(self) -> bool:
        """Whether the answer takes the chat endpoint's form."""
        return bool(self.messages)


def read_completion(fields: Fields, abilities: frozenset[Ability] = frozenset()) -> Asked:
    """A request to ``/v1/completions``, of an engine with ``abilities``.

    Raises:
        Refusal: a field is missing, of the wrong type, out of bounds, or asks for what this server cannot do.
    """
    _refuse_unsupported(fields, abilities)
    # A number here, of alternatives to each token; a chat says true or false, and gives that number by itself.
    asked = None if fields.get("logprobs") is False else fields.get("logprobs")
    ranked = whole({"logprobs": asked}, "logprobs", 0, 0, MOST_RANKED)
    logprobs = ranked if asked is not None and "logprobs" in abilities else None
    return _read(fields, _prompts(fields.get("prompt")), (), default_tokens=16, logprobs=logprobs)


def read_chat(fields: Fields, abilities: frozenset[Ability] = frozenset()) -> Asked:
    """A request to ``/v1/chat/completions``; raises like `read_completion`."""
    messages = fields.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refusal("messages must be a list of at least one message", param="messages")
    _refuse_unsupported(fields, abilities)
    turns = tuple(_message(each) for each in messages)
    ranked, wanted = whole(fields, "top_logprobs", 0, 0, MOST_RANKED), flag(fields, "logprobs")
    if ranked and not wanted:
        raise Refusal("top_logprobs asks for more of what logprobs, true, asks for", param="top_logprobs")
    return _read(fields, (), turns, default_tokens=None, logprobs=ranked if wanted else None)


def _read(
    fields: Fields, prompts: tuple[Prompt, ...], messages: tuple[Message, ...], *, default_tokens: int | None,
    logprobs: int | None,
) -> Asked:  # fmt: skip
    name = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    asked = None if fields.get(name) is None else whole(fields, name, 1, 1, LARGEST)
    stream, n = flag(fields, "stream"), whole(fields, "n", 1, 1, MOST_CHOICES)
    if len(prompts) * n > MOST_ANSWERS:
        raise Refusal(f"{len(prompts)} prompts with {n} answers each: {MOST_ANSWERS} answers may be asked for at once")
    return Asked(
        model=text(fields, "model"),
        prompts=prompts,
        messages=messages,
        sampling=_sampling(fields, logprobs=logprobs),
        max_tokens=default_tokens if asked is None else asked,
        n=n,
        stream=stream,
        include_usage=flag(section(fields, "stream_options"), "include_usage"),
        priority=whole(fields, "priority", 0, -LARGEST, LARGEST),
        use_cache=flag(fields, "cache_prompt", default=True),
        cache_salt=text(fields, "cache_salt"),
        switches=_switches(fields),
        stop_token_ids=_stop_tokens(fields.get("stop_token_ids")),
    )


def _sampling(fields: Fields, *, logprobs: int | None) -> SamplingParams:
    """OpenAI's defaults: temperature 1, and a seed of the server's choosing. ``logprobs`` counts the alternatives."""
    return SamplingParams(
        temperature=number(fields, "temperature", 1.0, 0.0, 2.0),
        top_p=number(fields, "top_p", 1.0, 0.0, 1.0),
        top_k=max(0, whole(fields, "top_k", 0, -1, LARGEST)),
        min_p=number(fields, "min_p", 0.0, 0.0, 1.0),
        seed=whole(fields, "seed", secrets.randbelow(LARGEST), -(2**63), 2**64 - 1),
        min_tokens=whole(fields, "min_tokens", 0, 0, LARGEST),
        ignore_eos=flag(fields, "ignore_eos"),
        stop=_stops(fields.get("stop")),
        repetition_penalty=number(fields, "repetition_penalty", 1.0, 0.01, 100.0),
        frequency_penalty=number(fields, "frequency_penalty", 0.0, -2.0, 2.0),
        presence_penalty=number(fields, "presence_penalty", 0.0, -2.0, 2.0),
        logprobs=logprobs is not None,
        top_logprobs=logprobs or 0,
    )


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else value if value is not None else []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS or not all(isinstance(each, str) for each in stops):
        raise Refusal(f"stop must be a string or a list of at most {MOST_STOPS} of them", param="stop")
    return tuple(each for each in stops if each)


def _switches(fields: Fields) -> Fields:
    found = section(fields, "chat_template_kwargs")
    if taken := sorted({"messages", "self"} & found.keys()):
        raise Refusal(f"chat_template_kwargs has {taken[0]!r}, which is no switch", param="chat_template_kwargs")
    return found


def _stop_tokens(value: object) -> frozenset[int]:
    ids = [] if value is None else value
    if not isinstance(ids, list) or len(ids) > MOST_STOPS or not all(type(each) is int and each >= 0 for each in ids):
        raise Refusal(f"stop_token_ids must be a list of at most {MOST_STOPS} token ids", param="stop_token_ids")
    return frozenset(ids)


def _prompts(value: object) -> tuple[Prompt, ...]:
    match value:
        case str():
            return (value,)
        case [int(), *_]:
            return (_ids(value),)
        case [str(), *_] if all(isinstance(each, str) for each in value):
            return tuple(str(each) for each in value)
        case [[*_], *_]:
            return tuple(_ids(each) for each in value)
    raise Refusal("prompt must be a string, a list of strings, or token ids", param="prompt")


def _ids(value: object) -> tuple[int, ...]:
    # Thousands of them come with a request: whole lists are gone through by what is built in.
    if not isinstance(value, list) or set(map(type, value)) - {int} or min(value, default=0) < 0:
        raise Refusal("a prompt of token ids must be a list of whole numbers from 0", param="prompt")
    return tuple(value)


def _message(value: object) -> Message:
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise Refusal("each message must be an object with a role", param="messages")
    content = value.get("content")
    if isinstance(content, list):
        content = "".join(_part(each) for each in content)
    if not isinstance(content, str):
        raise Refusal("the content of a message must be text", param="messages")
    return Message(cast("str", value["role"]), content)


def _part(value: object) -> str:
    if isinstance(value, dict) and value.get("type") == "text" and isinstance(value.get("text"), str):
        return cast("str", value["text"])
    raise Refusal("the parts of a message must be of type text: this server reads nothing else", param="messages")


def _refuse_unsupported(fields: Fields, abilities: frozenset[Ability]) -> None:
    lacking = (each for ability, names in OF_SOME.items() if ability not in abilities for each in names)
    for name, neutral in (*NEUTRAL, *lacking):
        value = fields.get(name)
        if value is not None and value != neutral and not (isinstance(value, float) and math.isclose(value, 0.0)):
            raise Refusal(f"{name} is not supported here; leave it out", param=name, code="unsupported_parameter")
    kind = section(fields, "response_format").get("type", "text")
    if kind != "text":
        raise Refusal(f"response_format {kind!r} is not supported here; leave it out", param="response_format")

"""A GGUF's chat template: from messages to the prompt that the model was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from velollm_core.backends.request import Message
from velollm_core.errors import ModelFileError, VeloError


def render(
    template: str, messages: Sequence[Message], switches: Mapping[str, object] | None = None, *, bos: str, eos: str
) -> str:
    """The prompt of ``messages`` up to where the answer begins; ``switches`` are the template's own.

    The template comes from strangers, so it runs in Jinja's sandbox.

    Raises:
        VeloError: the template refuses the messages.
        ModelFileError: it is no template.
    """
    from jinja2 import TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(reason: str) -> NoReturn:
        raise TemplateError(reason)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().astimezone().strftime(pattern)
    turns = [{"role": message.role, "content": message.content} for message in messages]
    given = {"add_generation_prompt": True, "bos_token": bos, "eos_token": eos, "tools": None, **(switches or {})}
    try:
        return environment.from_string(template).render({**given, "messages": turns})
    except TemplateSyntaxError as error:
        raise ModelFileError(f"the model's chat template cannot be read, line {error.lineno}: {error}") from error
    except (TemplateError, TypeError, ValueError, LookupError, OverflowError, RecursionError) as error:
        raise VeloError(f"the model's chat template refuses these messages: {_line(error)}") from error


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """JSON as it is: Jinja's own filter escapes what HTML would take for markup."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

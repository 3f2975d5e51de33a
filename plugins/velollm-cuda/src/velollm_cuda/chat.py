"""A model's chat template: from messages to the prompt that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NoReturn

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from velollm_core.errors import ModelFileError, VeloError
from velollm_cuda.generation import read_object

ChatMessage = Mapping[str, object]


class ChatTemplate:
    """A Jinja template, run in a sandbox: it comes with the model, from strangers."""

    def __init__(self, source: str, origin: str, variables: Mapping[str, str] | None = None) -> None:
        """``origin`` names the file in errors; ``variables`` are the special tokens by name (``bos_token``, …)."""
        self.source = source
        self.origin = origin
        self.variables = dict(variables or {})

    def render(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[object] | None = None,
        add_generation_prompt: bool = True,
        **extra: object,
    ) -> str:
        """The prompt of ``messages``, each with ``role`` and ``content``, up to where the answer begins.

        ``extra`` are switches of the template's own, such as ``enable_thinking``.

        Raises:
            VeloError: the template refuses them (many want user and assistant in turn).
            ModelFileError: it is no template.
        """
        template = self._template
        given = {"tools": tools, "add_generation_prompt": add_generation_prompt, **self.variables, **extra}
        try:
            return template.render(messages=list(messages), **given)
        except (TemplateError, TypeError, ValueError, LookupError, OverflowError, RecursionError) as error:
            raise VeloError(f"{self.origin}: the chat template refuses these messages: {_line(error)}") from error

    @cached_property
    def _template(self) -> Template:
        try:
            return _environment().from_string(self.source)
        except TemplateSyntaxError as error:
            raise ModelFileError(f"{self.origin}: no chat template, line {error.lineno}: {_line(error)}") from error


def find_template(folder: Path, config: Mapping[str, object], variables: Mapping[str, str]) -> ChatTemplate | None:
    """The chat template of the model in ``folder``, whose ``tokenizer_config.json`` holds ``config``.

    A file of its own comes first: newer models have ``chat_template.jinja``, some ``chat_template.json``.

    Raises:
        ModelFileError: a file cannot be read.
    """
    path = folder / "chat_template.jinja"
    if path.exists():
        return ChatTemplate(_read(path), str(path), variables)
    beside = folder / "chat_template.json"
    for path, document in ((beside, read_object(beside)), (folder / "tokenizer_config.json", config)):
        source = _source(document.get("chat_template"))
        if source is not None:
            return ChatTemplate(source, str(path), variables)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error})") from error


def _source(value: object) -> str | None:
    """The template; of several, each with a name, the default one."""
    if isinstance(value, list):
        named = {each.get("name"): each.get("template") for each in value if isinstance(each, dict)}
        value = named.get("default") or next(iter(named.values()), None)
    return value if isinstance(value, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda pattern: datetime.now().astimezone().strftime(pattern)
    return environment


class GenerationBlock(Extension):
    """``{% generation %}``: marks the model's own words for training; a prompt takes them as they are."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> nodes.Node:
        """The block's body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: object, ensure_ascii: bool = False, indent: int | None = None,
    separators: tuple[str, str] | None = None, sort_keys: bool = False,
) -> str:  # fmt: skip
    """JSON as it is: Jinja's own filter escapes what HTML would take for markup."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

"""A plan written down: what starts a llama-server with it, for people and their init systems. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from attrs import asdict

from velollm_core.errors import BackendError
from velollm_llamacpp.settings import chosen, environment, flags
from velollm_llamacpp.settings import without_variable as unsaid

if TYPE_CHECKING:
    from velollm_core.backends.setting import Plan, Value

Values = Mapping[str, "Value"]


def emit(plan: Plan, suffix: str) -> str:
    """The text of a file ending in ``suffix``, one of `SUFFIXES`.

    Raises:
        BackendError: there is no such format, or llama-server does not know a setting.
    """
    writer = _WRITERS.get(suffix)
    if writer is None:
        raise BackendError(
            f"llamacpp: cannot write a plan as {suffix or 'a file without suffix'}: {', '.join(SUFFIXES)}"
        )
    return writer(plan, chosen(plan.settings))


def _shell(plan: Plan, values: Values) -> str:
    words = [f"  {line} \\" for line in _lines(["-m", plan.model, *flags(values)], shlex.quote)]
    return "\n".join(["#!/bin/sh", *_comments(plan), 'exec "${LLAMA_SERVER:-llama-server}" \\', *words, '  "$@"', ""])


def _environment(plan: Plan, values: Values) -> str:
    variables = {"LLAMA_ARG_MODEL": plan.model, **environment(values)}
    head = ["# For docker's --env-file or systemd's EnvironmentFile=; llama-server reads these by itself."]
    rest = [f"# Only on the command line: {' '.join(flags({name: value}))}" for name, value in unsaid(values).items()]
    return "\n".join([*head, *_comments(plan), *rest, *(f"{name}={value}" for name, value in variables.items()), ""])


def _json(plan: Plan, values: Values) -> str:
    document = {
        "schema": "velollm.llamacpp/1",
        "model": plan.model,
        "command": ["llama-server", "-m", plan.model, *flags(values)],
        "environment": {"LLAMA_ARG_MODEL": plan.model, **environment(values)},
        "settings": [asdict(setting) for setting in plan.settings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _service(plan: Plan, values: Values) -> str:
    words = [f"  {line} \\" for line in _lines(["-m", plan.model, *flags(values)], _systemd)]
    words[-1] = words[-1].removesuffix(" \\")
    return "\n".join(
        [
            *_comments(plan),
            "[Unit]",
            f"Description=llama-server with {_systemd(plan.model)}, as VeloLLM planned it",
            "After=network.target",
            "",
            "[Service]",
            "ExecStart=/usr/bin/env llama-server \\",
            *words,
            "Restart=on-failure",
            "",
            "[Install]",
            "WantedBy=default.target",
            "",
        ]
    )


def _powershell(plan: Plan, values: Values) -> str:
    lines = _lines(["-m", plan.model, *flags(values)], _quoted_for_powershell)
    return "\r\n".join([*_comments(plan), "& llama-server `", *(f"  {line} `" for line in lines), "  @args", ""])


def _comments(plan: Plan) -> list[str]:
    head = [f"# {_line(plan.model)} on llama.cpp, as VeloLLM planned it."]
    return head + [
        f"# {setting.name} {_line(setting.value)}: {_line(setting.reason)} ({setting.evidence})"
        for setting in plan.settings
    ]


def _line(value: Value) -> str:
    return " ".join(str(value).split())


def _lines(words: list[str], quote: Callable[[str], str]) -> list[str]:
    """Each flag with its value on a line of its own."""
    lines: list[str] = []
    for word in words:
        # A value may be negative: "--cache-ram -1".
        is_flag = word.startswith("-") and not word.lstrip("-").isdigit()
        if is_flag or not lines:
            lines.append(quote(word))
        else:
            lines[-1] += f" {quote(word)}"
    return lines


def _systemd(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if escaped == word and not set(word) & set(" ;'") else f'"{escaped}"'


def _quoted_for_powershell(word: str) -> str:
    return word if word.replace("-", "").isalnum() else "'" + word.replace("'", "''") + "'"


_WRITERS: Mapping[str, Callable[[Plan, Values], str]] = {
    ".sh": _shell,
    ".env": _environment,
    ".json": _json,
    ".service": _service,
    ".ps1": _powershell,
}
SUFFIXES = tuple(_WRITERS)

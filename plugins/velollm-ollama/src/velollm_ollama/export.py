"""A plan as a file: for a shell, a service, a container, or ``ollama create``."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from velollm_core.errors import BackendError
from velollm_ollama import writers
from velollm_ollama.derived import modelfile, names_of
from velollm_ollama.parameters import check_parameters
from velollm_ollama.settings import environment_of, parameters_of

if TYPE_CHECKING:
    from velollm_core.backends.setting import Plan
    from velollm_ollama.version import Version

_END: Final = "VELOLLM_MODELFILE"


def emit(plan: Plan, suffix: str, version: Version | None) -> str:
    """``plan`` in the form that ``suffix`` names; raises `VeloError` for what ``version`` would not read as written."""
    if suffix not in SUFFIXES:
        raise BackendError(f"ollama: no file ending in {suffix!r} can be written; there are {' '.join(SUFFIXES)}")
    writers.check_writable(environment_of(plan.settings), version)
    check_parameters(parameters_of(plan.settings))
    special: dict[str, Callable[[Plan], str]] = {".sh": _shell, ".modelfile": _modelfile}
    if suffix in special:
        return special[suffix](plan)
    text = writers.write(environment_of(plan.settings), suffix, version)
    return text.rstrip("\n") + "\n" + "".join(f"# {line}\n" for line in _model_lines(plan))


def _shell(plan: Plan) -> str:
    """Exports with their reasons, then the derived model, made by Ollama's own command."""
    lines = ["#!/bin/sh", f"# Ollama settings for {_plain(plan.model)}, planned by velollm."]
    environment = environment_of(plan.settings)
    lines += ["", "# The server's environment: source this in the shell that starts `ollama serve`."]
    lines += ["# A service that runs already does not see it: write a .service, .yaml or .ps1 file for that."]
    for setting in plan.settings:
        if setting.where == "env":
            lines += [f"# {_plain(setting.reason)}"]
            lines += [f"export {setting.name}={shlex.quote(environment[setting.name])}"]
    lines += ["", "# The model's own parameters, and what each request carries:"]
    lines += [f"# {line}" for line in _model_lines(plan)]
    if parameters_of(plan.settings):
        lines += [f"# make_model creates {_plain(names_of(plan.model).name)} from the same weights."]
        lines += ["make_model() {", f"  ollama create {shlex.quote(names_of(plan.model).name)} -f - <<'{_END}'"]
        lines += [*modelfile(plan.model, parameters_of(plan.settings)).splitlines(), _END, "}"]
    return "\n".join(lines) + "\n"


def _modelfile(plan: Plan) -> str:
    return modelfile(plan.model, parameters_of(plan.settings))


def _model_lines(plan: Plan) -> list[str]:
    """What is no environment variable, to be read by people."""
    where = {"model": f"parameter of {_plain(names_of(plan.model).name)}", "request": "in each request"}
    return [
        f"{setting.name} = {_plain(str(setting.value))} ({where[setting.where]}): {_plain(setting.reason)}"
        for setting in plan.settings
        if setting.where in where
    ]


def _plain(text: str) -> str:
    """Text that cannot end its comment."""
    return " ".join(text.split())


SUFFIXES: Final = (".sh", *(suffix for suffix in writers.FORMS if suffix != ".sh"), ".modelfile")
"""Endings of the files that can be written; the first is the default."""

"""Look-ups in the tables: which variables exist in which version."""

from __future__ import annotations

import difflib

from velollm_ollama.tables.names import ELSEWHERE, NEVER
from velollm_ollama.tables.pass_through import PASS_THROUGH
from velollm_ollama.tables.performance import PERFORMANCE
from velollm_ollama.tables.removed import REMOVED
from velollm_ollama.tables.service import SERVICE
from velollm_ollama.variable import PassThrough, Variable
from velollm_ollama.version import NEWEST, Version

VARIABLES = PERFORMANCE + SERVICE + REMOVED


def variables_in(version: Version | None) -> dict[str, Variable]:
    """The variables that ``version`` reads, by name; those of the newest version read here for None."""
    return {variable.name: variable for variable in VARIABLES if variable.exists_in(version or NEWEST)}


def find(name: str) -> Variable | None:
    """The variable of that name in any version; None if none ever had it."""
    return next((variable for variable in VARIABLES if variable.name == name), None)


def pass_through(name: str) -> PassThrough | None:
    """llama.cpp's variable of that name; None where nothing is known of it."""
    if name.startswith("LLAMA_ARG_LOG_"):
        return PassThrough(name, PASS_THROUGH["LLAMA_ARG_MODEL"].effect, effective=False)
    return PASS_THROUGH.get(name)


def why_not(name: str, version: Version) -> str | None:
    """Why ``version`` does not read ``name``, in half a sentence with what to do; None where it does read it."""
    if name in variables_in(version) or name in ELSEWHERE:
        return None
    if name.startswith("LLAMA_ARG_"):
        return _why_not_passed(name, version)
    variable = find(name)
    if variable is not None and not version.at_least(variable.since):
        return f"came with {_dotted(variable.since)}"
    if variable is not None and variable.until is not None:
        return f"gone since {_dotted(variable.until)}: {variable.instead}"
    if name in NEVER:
        return f"no version has ever read it: {NEVER[name]}"
    close = difflib.get_close_matches(name, variables_in(version), n=1, cutoff=0.8)
    return "no version known here reads it" + (f"; did you mean {close[0]}?" if close else "")


def _why_not_passed(name: str, version: Version) -> str | None:
    if version.engine == "runners":
        return "reaches llama.cpp only from 0.30 on"
    entry = pass_through(name)
    if entry is None:
        return "not known to reach llama.cpp through Ollama"
    return None if entry.effective else entry.effect


def _dotted(triple: tuple[int, int, int]) -> str:
    return ".".join(str(number) for number in triple)

"""Per-model parameters: what a request's ``options`` or a derived model may hold, checked before Ollama sees them.

``/api/create`` takes anything, and a wrong type then breaks every request to that model; so the check is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from velollm_core.backends.setting import Value
from velollm_core.errors import VeloError
from velollm_ollama.parameter import Parameter, ParameterKind
from velollm_ollama.tables.parameters import DEPRECATED, PARAMETERS


def check_parameters(parameters: Mapping[str, object]) -> dict[str, Value]:
    """The parameters as Ollama should get them, or one line with everything that is wrong with them.

    Raises:
        VeloError: a name that no model takes, a wrong type, a number out of range.
    """
    wrong: list[str] = []
    checked: dict[str, Value] = {}
    for name, value in parameters.items():
        if name in DEPRECATED:
            wrong.append(f"{name} has had no effect for long")
        elif name not in PARAMETERS:
            wrong.append(f"{name} is no parameter of Ollama's")
        elif problem := _problem(PARAMETERS[name], value):
            wrong.append(problem)
        else:
            checked[name] = value  # type: ignore[assignment]
    if wrong:
        raise VeloError(f"parameters refused: {'; '.join(wrong)}")
    return checked


def parse_parameter(name: str, text: str) -> Value:
    """``text`` from a command line as the parameter's own type; unknown names stay text, for the check to refuse."""
    kind = PARAMETERS[name].kind if name in PARAMETERS else "text"
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        return text
    if kind == "bool":
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    return text


def parse_shown(text: str) -> dict[str, Value]:
    """``/api/show``'s ``parameters``: a name and a value a line, padded, texts quoted; repeated names keep the last."""
    found: dict[str, Value] = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name and value.strip():
            found[name] = parse_parameter(name, value.strip().strip('"'))
    return found


def _problem(parameter: Parameter, value: object) -> str | None:
    if not _fits(parameter.kind, value):
        return f"{parameter.name} takes {_article(parameter.kind)}, found {value!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if parameter.low is not None and value < parameter.low:
            return f"{parameter.name} is {value}, the least is {parameter.low:g}"
        if parameter.high is not None and value > parameter.high:
            return f"{parameter.name} is {value}, the most is {parameter.high:g}"
        if parameter.name == "num_predict" and value == 0:
            return "num_predict 0 means without end"
    return None


def _fits(kind: ParameterKind, value: object) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "text":
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (kind == "float" and isinstance(value, float) and value == value)


def _article(kind: ParameterKind) -> str:
    return {"int": "a whole number", "float": "a number", "bool": "true or false", "text": "text"}[kind]

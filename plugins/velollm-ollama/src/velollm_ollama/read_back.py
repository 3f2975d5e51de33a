"""What a server says it runs with, by the names that settings have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from velollm_ollama import catalogue
from velollm_ollama.effective import effective
from velollm_ollama.keep import same
from velollm_ollama.kv_types import kv_types
from velollm_ollama.parse import parse_int
from velollm_ollama.reading import as_read
from velollm_ollama.version import NEWEST

if TYPE_CHECKING:
    from velollm_core.backends.setting import Value
    from velollm_ollama.evidence import EffectiveSetting, Evidence

_PER_MODEL: Final = ("num_ctx", "num_batch", "num_thread", "num_gpu")
_SWITCH: Final = {"on": True, "true": True, "off": False, "false": False}


def read_settings_back(evidence: Evidence, model: str | None = None) -> dict[str, Value]:
    """Every setting that was really read: from log, process, child or ``/api/ps``; defaults that were assumed are not.

    With ``model`` also what that model is loaded with.
    """
    found: dict[str, Value] = {}
    for entry in effective(evidence).settings:
        if entry.model is None:
            if not entry.source.startswith("default of") or "unset in" in entry.source:
                found[entry.name] = _server_value(entry)
        elif model is not None and same(entry.model, model) and entry.name in _PER_MODEL:
            number = parse_int(entry.value)
            found[entry.name] = -1 if number is None else number
    return {name: value for name, value in found.items() if value is not None}


def in_force(name: str, text: str, evidence: Evidence) -> bool | None:
    """Whether the server runs with ``name`` set to ``text`` already; None where that cannot be read."""
    version = evidence.version or NEWEST
    variable = catalogue.variables_in(version).get(name)
    known = read_settings_back(evidence)
    if variable is None:
        return str(known[name]) == text if name in known else (None if evidence.process is None else False)
    if name not in known:
        return None
    wanted: Value = as_read(variable, text, version)
    if variable.kind in ("bool", "tristate"):
        wanted = _SWITCH.get(str(wanted))
    return str(known[name]).lower() == str(wanted).lower()


def differences(
    environment: Mapping[str, str], parameters: Mapping[str, Value], evidence: Evidence, model: str
) -> tuple[str, ...]:
    """One line for each setting that was read back as something else; what cannot be read back is not said."""
    found = read_settings_back(evidence, model)
    wrong = [name for name, text in environment.items() if in_force(name, text, evidence) is False]
    wrong += [name for name, value in parameters.items() if name in found and found[name] != value]
    wanted = {**environment, **parameters}
    return tuple(f"{name} is {found.get(name, 'not set')} instead of {wanted[name]}" for name in wrong)


def _server_value(entry: EffectiveSetting) -> Value:
    variable = catalogue.find(entry.name)
    if entry.value == "auto" or entry.value == "automatic" or "or off" in (entry.note or ""):
        return "auto"
    if variable is not None and variable.kind in ("bool", "tristate"):
        return _SWITCH.get(entry.value, entry.value)
    if variable is not None and variable.kind == "uint":
        number = parse_int(entry.value)
        return entry.value if number is None else number
    if entry.value.lower() in kv_types(None):
        return entry.value.lower()
    return entry.value

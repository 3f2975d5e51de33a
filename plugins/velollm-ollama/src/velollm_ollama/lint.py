"""Settings that Ollama would misread, ignore, or fall over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from velollm_ollama import catalogue
from velollm_ollama.finding import Finding, Severity
from velollm_ollama.host import parse_host
from velollm_ollama.kv_types import is_quantized, kv_types
from velollm_ollama.parse import clean, parse_bool, parse_duration, parse_int, parse_uint, strict_bool
from velollm_ollama.tables.names import NEVER
from velollm_ollama.variable import Kind, Variable
from velollm_ollama.version import NEWEST, Version

Problem = tuple[Severity, str]


def lint(environment: Mapping[str, str], version: Version | None = None) -> tuple[Finding, ...]:
    """Everything wrong with ``environment`` for ``version`` (the newest one known here for None), by name."""
    wanted = version or NEWEST
    found = [
        Finding(severity, name, value, message)
        for name, value in sorted(environment.items())
        if is_ours(name)
        for severity, message in problems(name, value, wanted)
    ]
    return (*found, *_pairs(environment, wanted))


def is_ours(name: str) -> bool:
    """Whether the name belongs to Ollama or passes through it."""
    return name.startswith(("OLLAMA_", "LLAMA_ARG_")) or catalogue.find(name) is not None


def problems(name: str, text: str, version: Version) -> Iterator[Problem]:
    """What is wrong with one variable."""
    reason = catalogue.why_not(name, version)
    if reason is not None:
        severity: Severity = "error" if name in NEVER or name.startswith("LLAMA_ARG_") else "warning"
        yield severity, f"has no effect in {version}: {reason}"
        return
    variable = catalogue.variables_in(version).get(name)
    value = clean(text)
    if variable is None or not value:
        return
    wrong = list(_CHECKS[variable.kind](variable, value, version))
    if not wrong and variable.inert_since is not None and version.at_least(variable.inert_since):
        wrong.append(("warning", variable.trap))
    yield from wrong


def _check_bool(variable: Variable, value: str, version: Version) -> Iterator[Problem]:  # noqa: ARG001
    if strict_bool(value) is None:
        yield "error", f"Ollama takes {value!r} for true; write 1 or 0"


def _check_uint(variable: Variable, value: str, version: Version) -> Iterator[Problem]:
    if parse_uint(value) is None:
        default = variable.default_in(version) or "the default"
        unit = f" in {variable.unit}" if variable.unit else ""
        yield "error", f"not a plain number{unit}: Ollama warns in its log and uses {default}"


def _check_duration(variable: Variable, value: str, version: Version) -> Iterator[Problem]:
    if parse_duration(value) is None and parse_int(value) is None:
        yield (
            "error",
            f"neither a duration such as 30m nor seconds: Ollama uses {variable.default_in(version)} without a word",
        )


def _check_kv_type(variable: Variable, value: str, version: Version) -> Iterator[Problem]:  # noqa: ARG001
    if value.lower() not in kv_types(version):
        outcome = "every model fails to load" if version.engine == "llama-server" else "f16 is used"
        yield "error", f"not one of {', '.join(kv_types(version))}: {outcome}"


def _check_level(variable: Variable, value: str, version: Version) -> Iterator[Problem]:  # noqa: ARG001
    if strict_bool(value) is None and parse_int(value) is None:
        yield "error", "neither 0, 1, 2 nor true or false: the level stays INFO"


def _check_host(variable: Variable, value: str, version: Version) -> Iterator[Problem]:  # noqa: ARG001
    host = parse_host(value)
    if host.note:
        yield "error", host.note
    elif "://" in value and host.port in ("80", "443") and not value.rstrip("/").endswith(f":{host.port}"):
        yield "warning", f"no port with a scheme means {host.port}, not 11434"


def _check_text(variable: Variable, value: str, version: Version) -> Iterator[Problem]:  # noqa: ARG001
    if variable.name == "OLLAMA_MODELS" and value.startswith("~"):
        yield "error", "`~` is not expanded: write the whole path"


_CHECKS: dict[Kind, Callable[[Variable, str, Version], Iterator[Problem]]] = {
    "bool": _check_bool,
    "tristate": _check_bool,
    "uint": _check_uint,
    "duration": _check_duration,
    "kv_type": _check_kv_type,
    "level": _check_level,
    "host": _check_host,
    "list": _check_text,
    "text": _check_text,
}


def _pairs(environment: Mapping[str, str], version: Version) -> Iterator[Finding]:
    """What only two variables together do wrong."""
    kind = clean(environment.get("OLLAMA_KV_CACHE_TYPE", ""))
    attention = clean(environment.get("OLLAMA_FLASH_ATTENTION", ""))
    if (
        kind
        and kind.lower() in kv_types(version)
        and is_quantized(kind)
        and attention
        and not parse_bool(attention, True)
    ):
        outcome = "every model fails to load" if version.engine == "llama-server" else "f16 is used instead"
        message = f"a quantized cache needs flash attention, and OLLAMA_FLASH_ATTENTION={attention} is off: {outcome}"
        yield Finding("error", "OLLAMA_KV_CACHE_TYPE", kind, message)
    if kind:
        for name in ("LLAMA_ARG_CACHE_TYPE_K", "LLAMA_ARG_CACHE_TYPE_V"):
            if name in environment:
                yield Finding("warning", name, environment[name], "OLLAMA_KV_CACHE_TYPE is set, and its flag wins")

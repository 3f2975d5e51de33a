"""The settings in force, from everything that could be read of a server."""

from __future__ import annotations

from collections.abc import Iterator

from velollm_ollama import catalogue
from velollm_ollama.evidence import Effective, EffectiveSetting, Evidence
from velollm_ollama.finding import Finding
from velollm_ollama.lint import lint
from velollm_ollama.model_effective import loaded_settings
from velollm_ollama.parse import clean
from velollm_ollama.reading import as_read
from velollm_ollama.variable import Variable
from velollm_ollama.version import NEWEST, Version


def effective(evidence: Evidence) -> Effective:
    """Every setting that tunes, with the best source for it; then what each loaded model runs with."""
    version = evidence.version or NEWEST
    settings = [
        _server_setting(variable, evidence, version)
        for variable in catalogue.variables_in(version).values()
        if variable.tunes
        and (variable.defaults[-1][1] or variable.kind in ("kv_type", "uint") or _typed(variable.name, evidence))
    ]
    settings += _passed(evidence, version)
    return Effective((*settings, *loaded_settings(evidence)), tuple(_findings(evidence, version)), evidence.notes)


def _server_setting(variable: Variable, evidence: Evidence, version: Version) -> EffectiveSetting:
    typed = _typed(variable.name, evidence)
    logged = evidence.log.values.get(variable.name) if evidence.log else None
    if logged is not None:
        value, source = logged, evidence.log_source
    elif evidence.process is not None:
        value, source = as_read(variable, typed, version), evidence.process.origin
    else:
        value, source = variable.default_in(version), f"default of {version}"
    if evidence.process is not None and typed is None and value == variable.default_in(version):
        source = f"default of {version}, unset in {evidence.process.origin}"
    note = None
    if typed is not None and clean(typed) and clean(typed) != value and variable.kind != "duration":
        note = f"written {clean(typed)!r}"
    if variable.name == "OLLAMA_FLASH_ATTENTION":
        return _flash_attention(value, typed, source, evidence)
    if variable.name == "OLLAMA_CONTEXT_LENGTH" and value == "0":
        return _context(variable, source, evidence)
    if variable.name == "OLLAMA_KV_CACHE_TYPE" and not value:
        value = "f16"
    return EffectiveSetting(variable.name, value, source, note)


def _flash_attention(value: str, typed: str | None, source: str, evidence: Evidence) -> EffectiveSetting:
    """Three states behind two words: the log prints ``false`` for off and for automatic."""
    name = "OLLAMA_FLASH_ATTENTION"
    if value == "true":
        word = clean(typed or "")
        return EffectiveSetting(name, "on", source, f"written {word!r}" if word not in ("", "1", "true") else None)
    if evidence.process is not None:
        state = "off" if typed is not None and clean(typed) else "auto"
        return EffectiveSetting(name, state, evidence.process.origin)
    flags = {child.child.flash_attention: "child's command line" for child in evidence.children}
    if not flags and evidence.log and evidence.log.loads:
        flags = {evidence.log.loads[-1].child.flash_attention: f"command line in {evidence.log_source}"}
    for state, where in flags.items():
        return EffectiveSetting(name, state, where)
    unsure = "or off: the log prints the same for both" if evidence.log else None
    return EffectiveSetting(name, "auto", source, unsure)


def _context(variable: Variable, source: str, evidence: Evidence) -> EffectiveSetting:
    tier = evidence.log.default_context if evidence.log else None
    if tier is None:
        return EffectiveSetting(variable.name, "automatic", source, "4096, 32768 or 262144 by the GPUs' memory")
    return EffectiveSetting(variable.name, str(tier), evidence.log_source, "automatic, by the GPUs' memory")


def _passed(evidence: Evidence, version: Version) -> Iterator[EffectiveSetting]:
    """llama.cpp's variables that reach the child, which the start log leaves out."""
    if version.engine == "runners" or evidence.process is None:
        return
    for name, text in sorted(evidence.process.typed.items()):
        if name.startswith("LLAMA_ARG_") and catalogue.find(name) is None and clean(text):
            reason = catalogue.why_not(name, version)
            if reason is None:
                yield EffectiveSetting(name, text, evidence.process.origin, "passed to llama.cpp")


def _findings(evidence: Evidence, version: Version) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    known = evidence.process.typed if evidence.process else {}
    if not known and evidence.log:
        known = {warning.name: warning.value for warning in evidence.log.warnings}
        known |= {
            name: value for name, value in evidence.log.values.items() if name == "OLLAMA_KV_CACHE_TYPE" and value
        }
    for finding in lint(known, version):
        seen.add((finding.name, finding.value))
        yield finding
    for load in evidence.log.loads if evidence.log else ():
        if load.failure:
            yield Finding("error", "load", load.child.model.rsplit("/", 1)[-1][:19], load.failure)
    yield from _shell_differs(evidence, version)


def _shell_differs(evidence: Evidence, version: Version) -> Iterator[Finding]:
    """An export in this shell does not reach a server that is already running."""
    if evidence.shell is None or (evidence.process is None and evidence.log is None):
        return
    for name, text in evidence.shell.settings.items():
        variable = catalogue.variables_in(version).get(name)
        if variable is None or name == "OLLAMA_HOST":
            continue
        here = as_read(variable, text, version)
        there = evidence.log.values.get(name) if evidence.log else None
        if there is None:
            there = as_read(variable, _typed(name, evidence), version) if evidence.process else None
        if there is not None and there != here:
            yield Finding("warning", name, text, f"set in this shell, but the server runs with {there or 'nothing'}")


def _typed(name: str, evidence: Evidence) -> str | None:
    if evidence.process is not None:
        return evidence.process.typed.get(name)
    if evidence.log is not None:
        return next((warning.value for warning in evidence.log.warnings if warning.name == name), None)
    return None

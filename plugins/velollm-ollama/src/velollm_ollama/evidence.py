"""What could be learned of a running server, each piece with its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from velollm_ollama.child import Child
from velollm_ollama.config import OllamaConfig
from velollm_ollama.finding import Finding
from velollm_ollama.log import ServerLog
from velollm_ollama.version import Version


@frozen
class ChildReport:
    """One running llama-server: its command line, environment, and what its ``/props`` and ``/slots`` say.

    ``slots`` and ``context_per_slot`` (tokens) are None where the child was not asked or did not answer.
    """

    child: Child
    environment: Mapping[str, str] = field(factory=dict)
    slots: int | None = None
    context_per_slot: int | None = None
    busy: int | None = None
    build: str | None = None

    def answered(self, props: Mapping[str, Any], slots: object) -> ChildReport:
        """The same with what the child's own endpoints said."""
        defaults = props.get("default_generation_settings")
        context = defaults.get("n_ctx") if isinstance(defaults, Mapping) else None
        known = [slot for slot in slots if isinstance(slot, Mapping)] if isinstance(slots, list) else None
        return ChildReport(
            self.child,
            self.environment,
            slots=_int(props.get("total_slots")) if known is None else len(known),
            context_per_slot=_int(context),
            busy=None if known is None else sum(bool(slot.get("is_processing")) for slot in known),
            build=build if isinstance(build := props.get("build_info"), str) else None,
        )


@frozen
class LoadedModel:
    """One model of ``/api/ps``. ``size`` counts bytes over all devices, ``size_vram`` those on GPUs."""

    name: str
    size: int
    size_vram: int
    context: int | None
    expires_at: str | None = None
    digest: str = ""

    @classmethod
    def from_ps(cls, entry: Mapping[str, Any]) -> LoadedModel:
        """One entry of the answer; absent numbers are zeros that were left out."""
        return cls(
            name=str(entry.get("name") or entry.get("model") or ""),
            size=_int(entry.get("size")) or 0,
            size_vram=_int(entry.get("size_vram")) or 0,
            context=_int(entry.get("context_length")),
            expires_at=entry.get("expires_at"),
            digest=str(entry.get("digest") or ""),
        )


@frozen
class Evidence:
    """Everything read of one server. None or empty is what could not be read; ``notes`` say why."""

    version: Version | None
    log: ServerLog | None = None
    log_source: str = "server log"
    process: OllamaConfig | None = None
    children: tuple[ChildReport, ...] = ()
    loaded: tuple[LoadedModel, ...] = ()
    shell: OllamaConfig | None = None
    notes: tuple[str, ...] = ()


@frozen
class EffectiveSetting:
    """``value`` as it acts, ``source`` where that was read; ``note`` where it is not what somebody wrote.

    ``model`` names the loaded model that it belongs to, None for the server's own.
    """

    name: str
    value: str
    source: str
    note: str | None = None
    model: str | None = None


@frozen
class Effective:
    """The settings in force, and what is wrong or surprising about them."""

    settings: tuple[EffectiveSetting, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def get(self, name: str, model: str | None = None) -> EffectiveSetting | None:
        """One setting by name."""
        return next((entry for entry in self.settings if entry.name == name and entry.model == model), None)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None

"""What a measuring command works on: this machine, a backend that can be used, a model it can answer with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from velollm_core.choose import BackendChoice, ModelCandidate, ModelChoice, choose_backend, choose_model
from velollm_core.config import load_config
from velollm_core.errors import BackendUnreachable, VeloError
from velollm_core.hardware.probe import detect_hardware
from velollm_core.plugins import Plugins

if TYPE_CHECKING:
    from velollm_core.backends.status import Status
    from velollm_core.hardware.machine import Hardware

Pick = Callable[[Sequence[ModelCandidate]], ModelCandidate]


@frozen
class Target:
    """The plugins, the machine they were asked about, and what was chosen. ``statuses`` are those of all backends."""

    plugins: Plugins
    hardware: Hardware
    statuses: Mapping[str, Status]
    choice: BackendChoice


def find_target(asked: str | None) -> Target:
    """Look at the machine and take a backend: ``asked``, the default, one that runs, or one that can be started.

    Raises:
        BackendUnreachable: none can be used; the text says what each one lacks.
        VeloError: no plugin offers ``asked``.
    """
    hardware = detect_hardware()
    plugins = Plugins.load()
    backends = plugins.detect(hardware)
    statuses = plugins.statuses(backends)
    choice = choose_backend(backends, statuses, asked=asked, default=load_config().default_backend)
    if choice is None:
        raise BackendUnreachable(_nobody(statuses))
    return Target(plugins, hardware, statuses, choice)


def find_model(target: Target, asked: str | None, pick: Pick | None = None) -> ModelChoice:
    """The model that is meant, with its shape; see `choose_model`."""
    return choose_model(target.choice, asked=asked, pick=pick)


def find_name(target: Target, asked: str | None) -> tuple[str, ModelChoice | None]:
    """The name to ask the backend for, and its shape where that can be known: a running server needs no shape.

    Raises:
        VeloError: there is no such model.
    """
    listed = target.choice.status.models if target.choice.status.running else ()
    try:
        chosen = find_model(target, asked)
    except VeloError:
        if asked in listed:
            return str(asked), None
        if asked is None and listed:
            return listed[0], None
        raise
    return chosen.name, chosen


def _nobody(statuses: Mapping[str, Status]) -> str:
    if not statuses:
        return "no backend is installed; `pip install velollm[llamacpp]` brings one that needs nothing else"
    reasons = "; ".join(f"{name}: {status.reason or 'does not answer'}" for name, status in statuses.items())
    return f"no backend can be used here ({reasons}); start one, or `pip install velollm[llamacpp]`"

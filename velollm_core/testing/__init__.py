"""Fakes, contracts and models that the tests of every plugin share.

``pytest_plugins = ["velollm_core.testing"]`` brings the fixtures; whoever does not ask for them pays nothing, so every
name is imported when it is first used. (PYTEST_DONT_REWRITE: there is no assertion here, and tests import it first.)
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velollm_core.testing.any_backend import AnyBackendContract
    from velollm_core.testing.backend_contract import BackendContract
    from velollm_core.testing.block_contract import BlockManagerContract
    from velollm_core.testing.fake_server import FakeServer, unused_url
    from velollm_core.testing.install import Outcome, install_plugin, run_cli
    from velollm_core.testing.plugin_contract import PluginContract, some_hardware
    from velollm_core.testing.recording import Recording, read_body, read_http
    from velollm_core.testing.reply import (
        Answer,
        Reply,
        Seen,
        document,
        events,
        json_lines,
        openai_routes,
        silence,
        text,
    )
    from velollm_core.testing.scheduler_contract import SchedulerContract

pytest_plugins = ["velollm_core.testing.fixtures"]

_PLACES = {
    "any_backend": ("AnyBackendContract",),
    "backend_contract": ("BackendContract",),
    "block_contract": ("BlockManagerContract",),
    "fake_server": ("FakeServer", "unused_url"),
    "install": ("Outcome", "install_plugin", "run_cli"),
    "plugin_contract": ("PluginContract", "some_hardware"),
    "recording": ("Recording", "read_body", "read_http"),
    "reply": ("Answer", "Reply", "Seen", "document", "events", "json_lines", "openai_routes", "silence", "text"),
    "scheduler_contract": ("SchedulerContract",),
}
_ASSERTING = (
    "any_backend",
    *(module for module in _PLACES if module.endswith("_contract")),
    "sharing_contract",
    "preemption_contract",
    "block_kit",
    "engine_rig",
)
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Answer",
    "AnyBackendContract",
    "BackendContract",
    "BlockManagerContract",
    "FakeServer",
    "Outcome",
    "PluginContract",
    "Recording",
    "Reply",
    "SchedulerContract",
    "Seen",
    "document",
    "events",
    "install_plugin",
    "json_lines",
    "openai_routes",
    "read_body",
    "read_http",
    "run_cli",
    "silence",
    "some_hardware",
    "text",
    "unused_url",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if pytest := sys.modules.get("pytest"):
        # A contract's failed assertion then shows its values, as in the author's own tests.
        contracts = {f"{__name__}.{module}" for module in _ASSERTING}
        pytest.register_assert_rewrite(*contracts - sys.modules.keys())
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""What every plugin module must keep to, so that the core can call it blindly."""

from __future__ import annotations

import inspect
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import pluggy
import pytest

from velollm_core import hookspecs
from velollm_core.backends.backend import Backend
from velollm_core.backends.request import Chunk, Request
from velollm_core.backends.status import Status
from velollm_core.benchmark.workload import Workload
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.machine import Hardware, Platform
from velollm_core.hardware.memory import Memory
from velollm_core.models.spec import ModelSpec

HEAVY = ("aiohttp", "torch", "triton", "xllamacpp", "numpy", "vllm")


class PluginContract:
    """Judge a plugin by one attribute: ``plugin`` is its module."""

    plugin: ModuleType

    def test_every_hook_is_known(self) -> None:
        manager = pluggy.PluginManager("velollm")
        manager.add_hookspecs(hookspecs)
        manager.register(self.plugin)
        manager.check_pending()
        assert self.hooks(), f"{self.plugin.__name__} implements no hook: is one marked with @hookimpl?"

    def test_no_hook_argument_has_a_default(self) -> None:
        for name, function in self.hooks().items():
            optional = [
                each.name for each in inspect.signature(function).parameters.values() if each.default != each.empty
            ]
            assert not optional, f"pluggy never passes an argument with a default: {name}({', '.join(optional)}=…)"

    def test_hooks_are_synchronous(self) -> None:
        for name, function in self.hooks().items():
            assert not inspect.iscoroutinefunction(function), f"hook {name} must hand out an object, not a coroutine"

    def test_detect_offers_backends_without_io(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(socket.socket, "connect", _no_io)
        monkeypatch.setattr(subprocess, "Popen", _no_io)
        for hardware in (some_hardware(), some_hardware(memory=2**30)):
            offered = self.offered(hardware)
            assert all(isinstance(backend, Backend) for backend in offered)
            names = [backend.name for backend in offered]
            assert len(names) == len(set(names))

    def test_a_strangers_backend_is_left_alone(self) -> None:
        """A polite plugin answers None for what is not its own: else nobody after it is asked."""
        arguments: dict[str, Any] = {
            "backend": Stranger(),
            "model": ModelSpec("m", "llama", "m.gguf", "gguf", 2048, 256, 300, ()),
            "hardware": some_hardware(),
            "workload": Workload("w", "m"),
        }
        for name in ("optimize", "benchmark"):
            if function := self.hooks().get(name):
                asked = {each: arguments[each] for each in inspect.signature(function).parameters}
                assert function(**asked) is None, f"{name} answers for a backend that is not its own"

    def test_importing_it_is_cheap(self) -> None:
        script = f"import sys, {self.plugin.__name__}\nprint(*({HEAVY!r} & sys.modules.keys()))"
        script = script.replace(repr(HEAVY), repr(set(HEAVY)))
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert not done.stdout.split(), f"import these where they are used: {done.stdout}"

    def hooks(self) -> dict[str, Any]:
        """The functions that are marked as hook implementations, by the hook they implement."""
        marked = {name: value for name, value in vars(self.plugin).items() if hasattr(value, "velollm_impl")}
        return {value.velollm_impl.get("specname") or name: value for name, value in marked.items()}

    def offered(self, hardware: Hardware) -> list[Backend]:
        """What `detect` hands out on ``hardware``."""
        detect = self.hooks().get("detect")
        if detect is None:
            return []
        return list(detect(**({"hardware": hardware} if inspect.signature(detect).parameters else {})) or [])


class Stranger:
    """A backend that belongs to nobody."""

    name = "stranger"

    async def status(self) -> Status:
        """Nothing is there."""
        return Status(reachable=False, reason="a stranger")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Say one word."""
        yield Chunk(request.prompt)

    async def close(self) -> None:
        """Nothing to let go of."""


def some_hardware(memory: int = 16 * 2**30, cores: int = 4) -> Hardware:
    """A plain machine without a GPU, ``memory`` in bytes."""
    cpu = Cpu("Some CPU", "Some", "x86_64", cores, 2 * cores, 2 * cores, cores, None, None, None, None, None, ("avx2",))
    return Hardware(Platform("Linux", "6.1", "x86_64"), cpu, Memory(memory, memory // 2, None, None))


def _no_io(*_arguments: object, **_options: object) -> None:
    raise AssertionError("detect() must do no I/O: the core awaits status() for that")

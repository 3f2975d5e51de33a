"""Find, block, load and isolate plugins; one typed method per hook."""

from __future__ import annotations

import asyncio
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import redirect_stdout
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pluggy
from attrs import define, evolve, field, frozen

from velollm_core import defaults, hookspecs
from velollm_core.backends.backend import Backend
from velollm_core.backends.setting import Plan
from velollm_core.backends.status import Status
from velollm_core.errors import PluginError, VeloError
from velollm_core.isolation import bounded, bounded_each

if TYPE_CHECKING:
    from velollm_core.benchmark.report import Report
    from velollm_core.benchmark.workload import Workload
    from velollm_core.engine.blocks import BlockManager
    from velollm_core.engine.layout import KVCacheLayout
    from velollm_core.engine.limits import SchedulerLimits
    from velollm_core.engine.scheduling import Scheduler
    from velollm_core.hardware.machine import Hardware
    from velollm_core.models.spec import ModelSpec

GROUP = "velollm"
LOAD_SECONDS = 30.0
CALL_SECONDS = 10.0
STATUS_SECONDS = 5.0

State = Literal["loaded", "blocked", "failed"]
T = TypeVar("T")


@frozen
class PluginInfo:
    """One plugin as `velollm plugins` lists it; ``reason`` says why it is blocked or failed."""

    name: str
    distribution: str | None
    version: str | None
    hooks: tuple[str, ...]
    state: State
    reason: str | None = None

    def __str__(self) -> str:
        origin = f" ({self.distribution} {self.version})" if self.distribution else ""
        return f"plugin '{self.name}'{origin}"


@define
class Plugins:
    """The plugins of one command: made by `load`, passed down, never global."""

    manager: pluggy.PluginManager
    infos: dict[str, PluginInfo] = field(factory=dict)
    owners: dict[str, str] = field(factory=dict)

    @classmethod
    def load(cls, found: Iterable[EntryPoint] | None = None) -> Plugins:
        """Load every installed plugin that is not blocked; one that fails costs one line on stderr."""
        manager = pluggy.PluginManager("velollm")
        manager.add_hookspecs(hookspecs)
        manager.register(defaults, "defaults")
        if os.environ.get("VELOLLM_TRACE"):
            manager.add_hookcall_monitoring(_trace_call, _trace_result)
        plugins = cls(manager)
        for entry_point in sorted(entry_points(group=GROUP) if found is None else found, key=lambda each: each.name):
            plugins._add(entry_point)
        return plugins

    def detect(self, hardware: Hardware) -> list[Backend]:
        """Every backend that a plugin offers, names unique; a plugin that fails is reported and left out."""
        backends: list[Backend] = []
        for name in self.loaded:
            offered = self._call(name, "detect", lambda caller: caller(hardware=hardware))
            for backend in self._checked(name, offered):
                self.owners[backend.name] = name
                backends.append(backend)
        return backends

    def statuses(self, backends: Sequence[Backend], timeout: float = STATUS_SECONDS) -> dict[str, Status]:
        """One look at each backend, side by side, each in a thread that can be left behind."""
        looks = {backend.name: _look(backend) for backend in backends}
        outcomes = bounded_each(looks, timeout)
        return {name: self._status(name, outcome) for name, outcome in outcomes.items()}

    def optimize(self, backend: Backend, model: ModelSpec, hardware: Hardware, workload: Workload) -> Plan | None:
        """The plan for ``backend``, from the plugin that offered it first; None where nobody plans for it."""
        owner = self.owners.get(backend.name)
        arguments = {"backend": backend, "model": model, "hardware": hardware, "workload": workload}
        for name in sorted(self.loaded, key=lambda each: each != owner):
            for plan in self._call(name, "optimize", lambda caller: caller(**arguments)):
                if isinstance(plan, Plan):
                    return plan
                self._fail(name, PluginError(f"optimize returned {type(plan).__name__}, not a Plan"))
        return None

    def benchmark(self, backend: Backend, workload: Workload) -> Awaitable[Report]:
        """The awaitable that measures ``backend``: a plugin's own, else the core's runner."""
        return cast("Awaitable[Report]", self._first("benchmark", backend=backend, workload=workload))

    def allocate_kv(self, layout: KVCacheLayout, memory: int) -> BlockManager:
        """The block manager for ``memory`` bytes: a plugin's own, else the core's."""
        from velollm_core.engine.blocks import BlockManager

        made = self._first("allocate_kv", layout=layout, memory=memory)
        if isinstance(made, type) or not isinstance(made, BlockManager):
            raise self._blame("allocate_kv", f"gave {type(made).__name__}, which is no BlockManager")
        return made

    def schedule(self, limits: SchedulerLimits, blocks: BlockManager) -> Scheduler:
        """The scheduler over ``blocks``: a plugin's own, else the core's."""
        from velollm_core.engine.scheduling import Scheduler

        made = self._first("schedule", limits=limits, blocks=blocks)
        if isinstance(made, type) or not isinstance(made, Scheduler):
            raise self._blame("schedule", f"gave {type(made).__name__}, which is no Scheduler")
        return made

    def answering(self, hook: str) -> list[str]:
        """The plugins that implement ``hook``, by name, distribution and version; the core is not counted."""
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        return [str(self.infos[each.plugin_name]) for each in implementations if each.plugin_name in self.infos]

    @property
    def loaded(self) -> list[str]:
        """Names of the plugins that answer hooks now."""
        return [name for name, info in self.infos.items() if info.state == "loaded"]

    def _add(self, entry_point: EntryPoint) -> None:
        info = _info(entry_point)
        if info.name in self.infos:
            info = evolve(info, name=f"{info.name}#{len(self.infos)}", state="blocked", reason="its name is taken")
        self.infos[info.name] = info
        if info.state == "blocked":
            return
        try:
            with redirect_stdout(sys.stderr):
                module = bounded(entry_point.load, LOAD_SECONDS)
            self.manager.register(module, info.name)
            self.manager.check_pending()
            self.infos[info.name] = evolve(info, hooks=self._hooks(info.name))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin that cannot be loaded must not end the command
            self._fail(info.name, error)

    def _hooks(self, name: str) -> tuple[str, ...]:
        callers = self.manager.get_hookcallers(self.manager.get_plugin(name)) or []
        return tuple(sorted(caller.name for caller in callers))

    def _call(self, name: str, hook: str, call: Callable[[Any], list[T]]) -> list[T]:
        others = [plugin for other, plugin in self.manager.list_name_plugin() if other != name and plugin]
        caller = self.manager.subset_hook_caller(hook, others)
        try:
            with redirect_stdout(sys.stderr):
                return bounded(lambda: call(caller), CALL_SECONDS)
        except VeloError as error:
            if hook != "detect":
                raise
            self._fail(name, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one plugin's failure costs only its own answer
            self._fail(name, error)
        return []

    def _checked(self, name: str, offered: list[object]) -> Iterable[Backend]:
        for backends in offered:
            if isinstance(backends, Coroutine):
                backends.close()  # else Python adds a warning of its own to our one line
            if not isinstance(backends, Sequence) or isinstance(backends, str):
                self._fail(name, PluginError(f"detect returned {type(backends).__name__}, not a list of backends"))
                continue
            for backend in backends:
                if problem := _problem(backend, self.owners):
                    self._fail(name, PluginError(f"detect offered {problem}"))
                else:
                    yield cast("Backend", backend)

    def _status(self, backend: str, outcome: object) -> Status:
        if isinstance(outcome, Status):
            return outcome
        if not isinstance(outcome, BaseException):
            outcome = PluginError(f"status() of '{backend}' returned {type(outcome).__name__}, not a Status")
        self._report(self.owners.get(backend, backend), outcome, f"status of '{backend}' unknown")
        return Status(reachable=False, reason=f"status() failed: {_line(outcome)}")

    def _first(self, hook: str, **arguments: object) -> object:
        try:
            with redirect_stdout(sys.stderr):
                answer = bounded(lambda: getattr(self.manager.hook, hook)(**arguments), CALL_SECONDS)
        except VeloError:
            raise
        except (Exception, SystemExit) as error:
            raise self._blame(hook, f"failed: {_line(error)}", error) from error
        if answer is None:
            raise PluginError(f"hook '{hook}': nobody answered, not even the core")
        return answer

    def _blame(self, hook: str, text: str, error: BaseException | None = None) -> PluginError:
        """``text`` about the plugin whose function ``error`` came through, or about all that answer ``hook``."""
        implementations = getattr(self.manager.hook, hook).get_hookimpls()
        codes = {getattr(each.function, "__code__", None): each.plugin_name for each in implementations}
        frames = traceback.walk_tb(error.__traceback__ if error else None)
        names = [codes[frame.f_code] for frame, _ in frames if frame.f_code in codes]
        names = names[-1:] or [name for name in codes.values() if name in self.infos]
        subject = " or ".join(str(self.infos.get(name, name)) for name in names)
        return PluginError(f"{subject}: hook '{hook}' {text}; VELOLLM_BLOCK_PLUGINS={','.join(names)} leaves it out")

    def _fail(self, name: str, error: BaseException) -> None:
        self.manager.unregister(name=name)
        self.infos[name] = evolve(self.infos[name], state="failed", reason=_line(error), hooks=())
        self._report(name, error, "skipped")

    def _report(self, name: str, error: BaseException, consequence: str) -> None:
        if os.environ.get("VELOLLM_RAISE"):
            traceback.print_exception(error, file=sys.stderr)
        subject = self.infos.get(name, name)
        print(f"velollm: {subject} {consequence}: {_line(error)}; VELOLLM_RAISE=1 shows the traceback", file=sys.stderr)


def _info(entry_point: EntryPoint) -> PluginInfo:
    distribution = entry_point.dist
    name, version = (distribution.name, distribution.version) if distribution else (None, None)
    reason = _blocked(entry_point.name)
    return PluginInfo(entry_point.name, name, version, (), "blocked" if reason else "loaded", reason)


def _blocked(name: str) -> str | None:
    if name in _names("VELOLLM_BLOCK_PLUGINS"):
        return "blocked by VELOLLM_BLOCK_PLUGINS"
    if (only := _names("VELOLLM_ONLY_PLUGINS")) and name not in only:
        return "not in VELOLLM_ONLY_PLUGINS"
    return None


def _names(variable: str) -> set[str]:
    return {name.strip() for name in os.environ.get(variable, "").split(",") if name.strip()}


def _problem(backend: object, taken: dict[str, str]) -> str | None:
    if isinstance(backend, type) or not isinstance(backend, Backend) or not isinstance(backend.name, str):
        return f"{backend!r:.80}, which is no Backend (name, status, stream, close)"
    if backend.name in taken:
        return f"a second backend named '{backend.name}'; plugin '{taken[backend.name]}' has one"
    return None


def _look(backend: Backend) -> Callable[[], Status]:
    async def look() -> Status:
        try:
            return await backend.status()
        finally:
            await backend.close()

    return lambda: asyncio.run(look())


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, VeloError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _trace_call(hook: str, implementations: Sequence[pluggy.HookImpl], _arguments: object) -> None:
    names = ", ".join(implementation.plugin_name for implementation in implementations)
    print(f"velollm: hook {hook} -> {names}", file=sys.stderr)


def _trace_result(outcome: pluggy.Result[object], hook: str, _implementations: object, _arguments: object) -> None:
    shown = repr(outcome.exception or outcome.get_result())
    print(f"velollm: hook {hook} <- {shown:.200}", file=sys.stderr)

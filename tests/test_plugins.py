"""Plugins are found, blocked, loaded and isolated; each hook has one typed method."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest

from velollm_core.backends.request import Chunk, Request
from velollm_core.backends.setting import Plan
from velollm_core.backends.status import Status
from velollm_core.benchmark.workload import Workload
from velollm_core.errors import PluginError, VeloError
from velollm_core.hardware.cpu import Cpu
from velollm_core.hardware.machine import Hardware, Platform
from velollm_core.hardware.memory import Memory
from velollm_core.hookspecs import hookimpl
from velollm_core.plugins import Plugins

HARDWARE = Hardware(
    Platform("Linux", None, "x86_64"),
    Cpu(None, None, "x86_64", None, None, None, None, None, None, None, None, None, ()),
    Memory(1, 1, None, None),
)


class Fake:
    """A backend that answers at once."""

    def __init__(self, name: str = "fake", status: object = None) -> None:
        self.name = name
        self.answer = status or Status(reachable=True, version="1")
        self.closed = 0

    async def status(self) -> Status:
        return self.answer  # type: ignore[return-value]

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        yield Chunk("x")

    async def close(self) -> None:
        self.closed += 1


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Make modules of hook functions and load them as plugins."""

    def load(**plugins: dict[str, object]) -> Plugins:
        found = []
        for name, functions in plugins.items():
            module = ModuleType(f"fake_{name}")
            for hook, function in functions.items():
                setattr(module, hook, hookimpl(function) if callable(function) else function)
            monkeypatch.setitem(sys.modules, module.__name__, module)
            found.append(EntryPoint(name, module.__name__, "velollm"))
        return Plugins.load(found)

    return load


def detects(*backends: object):
    def detect(hardware):
        return list(backends)

    return detect


def test_detect_collects_from_all(install, capsys) -> None:
    plugins = install(a={"detect": detects(Fake("one"))}, b={"detect": detects(Fake("two"), Fake("three"))})
    assert [backend.name for backend in plugins.detect(HARDWARE)] == ["one", "two", "three"]
    assert plugins.owners == {"one": "a", "two": "b", "three": "b"}
    assert plugins.infos["a"].hooks == ("detect",)
    assert capsys.readouterr().err == ""


def test_none_is_nothing_to_offer(install) -> None:
    assert install(a={"detect": lambda: None}).detect(HARDWARE) == []


@pytest.mark.parametrize(
    ("rubbish", "says"),
    [
        (42, "detect returned int"),
        ("text", "detect returned str"),
        ([object()], "no Backend"),
        ([Fake], "no Backend"),
        ([Fake(name=7)], "no Backend"),  # type: ignore[arg-type]
        ([Fake("twice"), Fake("twice")], "a second backend named 'twice'"),
    ],
)
def test_rubbish_costs_one_line(install, capsys, rubbish: object, says: str) -> None:
    plugins = install(bad={"detect": lambda: rubbish}, good={"detect": detects(Fake("works"))})
    names = [backend.name for backend in plugins.detect(HARDWARE)]
    assert "works" in names
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("velollm: plugin 'bad' skipped")
    assert says in line
    assert plugins.infos["bad"].state == "failed"


def test_a_hook_that_raises_costs_its_own_answer(install, capsys) -> None:
    def detect():
        raise RuntimeError("two\nlines")

    plugins = install(bad={"detect": detect}, good={"detect": detects(Fake())})
    assert len(plugins.detect(HARDWARE)) == 1
    assert capsys.readouterr().err.splitlines() == [
        "velollm: plugin 'bad' skipped: RuntimeError: two lines; VELOLLM_RAISE=1 shows the traceback"
    ]
    assert plugins.loaded == ["good"]


def test_a_hook_that_hangs_is_left_behind(install, capsys, monkeypatch) -> None:
    monkeypatch.setattr("velollm_core.plugins.CALL_SECONDS", 0.05)
    plugins = install(bad={"detect": lambda: time.sleep(1)}, good={"detect": detects(Fake())})
    assert len(plugins.detect(HARDWARE)) == 1
    assert "Hung: no answer within 0.05 s" in capsys.readouterr().err


def test_a_misspelt_hook_is_said(install, capsys) -> None:
    plugins = install(bad={"detekt": lambda: None})
    assert plugins.infos["bad"].state == "failed"
    assert "detekt" in capsys.readouterr().err


def test_a_plugin_that_cannot_be_imported_is_said(capsys) -> None:
    plugins = Plugins.load([EntryPoint("gone", "no_such_module", "velollm")])
    assert plugins.infos["gone"].reason == "ModuleNotFoundError: No module named 'no_such_module'"
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("variable", "value"), [("VELOLLM_BLOCK_PLUGINS", "a, x"), ("VELOLLM_ONLY_PLUGINS", "b")])
def test_blocking(install, monkeypatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    plugins = install(a={"detect": detects(Fake("one"))}, b={"detect": detects(Fake("two"))})
    assert [backend.name for backend in plugins.detect(HARDWARE)] == ["two"]
    assert plugins.infos["a"].state == "blocked"
    assert variable in plugins.infos["a"].reason


def test_two_plugins_of_one_name(capsys, install) -> None:
    module = ModuleType("fake_twin")
    sys.modules["fake_twin"] = module
    plugins = Plugins.load([EntryPoint("twin", "fake_twin", "velollm")] * 2)
    assert [info.state for info in plugins.infos.values()] == ["loaded", "blocked"]


def test_statuses_side_by_side(install, capsys) -> None:
    class Hangs(Fake):
        async def status(self) -> Status:
            time.sleep(1)
            raise AssertionError

    class Raises(Fake):
        async def status(self) -> Status:
            raise OSError("broken")

    fine = Fake("fine")
    backends = [fine, Hangs("hangs"), Raises("raises"), Fake("rubbish", status="yes")]
    plugins = install(a={"detect": detects(*backends)})
    statuses = plugins.statuses(plugins.detect(HARDWARE), timeout=0.2)
    assert statuses["fine"].reachable
    assert fine.closed == 1
    assert [statuses[name].reachable for name in ("hangs", "raises", "rubbish")] == [False] * 3
    assert statuses["raises"].reason == "status() failed: OSError: broken"
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_optimize_asks_the_owner_first(install) -> None:
    plan = Plan("fake", "m", ())
    asked = []

    def planner(name: str, answer: Plan | None):
        def optimize(backend):
            asked.append(name)
            return answer

        return optimize

    plugins = install(a={"optimize": planner("a", None)}, b={"detect": detects(Fake()), "optimize": planner("b", plan)})
    (backend,) = plugins.detect(HARDWARE)
    assert plugins.optimize(backend, None, HARDWARE, Workload("w", "m")) is plan  # type: ignore[arg-type]
    assert asked == ["b"]


def test_optimize_lets_a_refusal_through(install) -> None:
    def optimize():
        raise VeloError("cannot")

    with pytest.raises(VeloError, match="cannot"):
        install(a={"optimize": optimize}).optimize(Fake(), None, HARDWARE, Workload("w", "m"))  # type: ignore[arg-type]


def test_nobody_plans(install) -> None:
    assert install().optimize(Fake(), None, HARDWARE, Workload("w", "m")) is None  # type: ignore[arg-type]


def test_a_plugin_measures_before_the_core(install) -> None:
    async def measured() -> str:
        return "report"

    plugins = install(a={"benchmark": lambda: measured()})
    assert asyncio.run(plugins.benchmark(Fake(), Workload("w", "m"))) == "report"  # type: ignore[comparison-overlap,arg-type]


def test_a_failure_of_a_single_answer_is_the_answer(install) -> None:
    def schedule():
        raise ValueError("no")

    with pytest.raises(PluginError, match="hook 'schedule' failed: ValueError: no"):
        install(a={"schedule": schedule}).schedule(None, None)  # type: ignore[arg-type]


def test_tracing(install, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VELOLLM_TRACE", "1")
    install(a={"detect": detects()}).detect(HARDWARE)
    assert "velollm: hook detect -> a" in capsys.readouterr().err


def test_what_a_plugin_prints_stays_off_stdout(install, capsys) -> None:
    def detect():
        print("noise")

    install(a={"detect": detect}).detect(HARDWARE)
    assert capsys.readouterr() == ("", "noise\n")

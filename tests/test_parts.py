"""A stranger's scheduler and block manager: used where one starts an engine, and named where they fail."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType

import pytest

from velollm_core.backends.request import SamplingParams
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.engine.layout import KVCacheLayout, KVGroup
from velollm_core.engine.limits import SchedulerLimits
from velollm_core.engine.loop import EngineLoop
from velollm_core.engine.output import SchedulerOutput
from velollm_core.engine.paged import PagedBlockManager
from velollm_core.engine.parts import EngineParts
from velollm_core.engine.sequence import Sequence
from velollm_core.errors import OutOfBlocks, PluginError, VeloError
from velollm_core.hookspecs import hookimpl
from velollm_core.parts import installed_parts
from velollm_core.plugins import Plugins
from velollm_core.testing import install_plugin, run_cli
from velollm_core.testing.cache_executor import CacheExecutor, expected_tokens
from velollm_core.testing.test_model import write_test_model

LAYOUT = KVCacheLayout((KVGroup(1, 4),), 4)
LIMITS = SchedulerLimits(4, 16, 60)
MEMORY = 20 * 16

Install = Callable[..., Plugins]


class Mine(ContinuousScheduler):
    """A stranger's scheduler."""


class Blocks(PagedBlockManager):
    """A stranger's block manager."""


def allocate_kv(layout, memory):
    return Blocks(layout, layout.num_blocks(memory))


def schedule(limits, blocks):
    return Mine(limits, blocks)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Plugins of these functions, by name; nothing else is installed."""

    def load(**plugins: list[Callable[..., object]]) -> Plugins:
        found = []
        for name, functions in plugins.items():
            module = ModuleType(f"parts_{name}")
            for function in functions:
                setattr(module, function.__name__, hookimpl(function))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            found.append(EntryPoint(name, module.__name__, "velollm"))
        return Plugins.load(found)

    return load


def engine(parts: EngineParts) -> EngineLoop:
    return EngineLoop(parts.schedule(LIMITS, parts.allocate_kv(LAYOUT, MEMORY)), CacheExecutor(LAYOUT))


def test_the_cores_own_where_nobody_offers_any(install: Install) -> None:
    assert installed_parts(install()) == EngineParts()
    assert type(engine(installed_parts(install())).scheduler) is ContinuousScheduler


def test_a_strangers_parts_run_the_engine(install: Install) -> None:
    loop = engine(installed_parts(install(mine=[allocate_kv, schedule])))
    assert type(loop.scheduler.blocks) is Blocks
    sequence = Sequence("a", [1, 2, 3], SamplingParams(max_tokens=9))
    loop.scheduler.add(sequence)
    assert len(list(loop.run())) == 9
    assert sequence.output_token_ids == expected_tokens([1, 2, 3], 9)
    assert loop.scheduler.stats().finished == 1
    assert not loop.scheduler.abort("a")
    assert loop.scheduler.limits is LIMITS
    with pytest.raises(OutOfBlocks):
        loop.scheduler.add(Sequence("b", [1] * 60, SamplingParams(max_tokens=9)))


def test_each_part_alone(install: Install) -> None:
    blocks = installed_parts(install(mine=[allocate_kv])).allocate_kv(LAYOUT, MEMORY)
    assert type(blocks) is Blocks
    blocks = installed_parts(install(mine=[schedule])).allocate_kv(LAYOUT, MEMORY)
    assert type(blocks) is PagedBlockManager


def raises(limits):
    raise ValueError("two\nlines")


def leaves(limits):
    sys.exit(3)


def gives_rubbish(limits):
    return 42


def gives_a_class(limits):
    return Mine


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises, "hook 'schedule' failed: ValueError: two lines"),
        (leaves, "hook 'schedule' failed: SystemExit: 3"),
        (gives_rubbish, "hook 'schedule' gave int, which is no Scheduler"),
        (gives_a_class, "hook 'schedule' gave .*, which is no Scheduler"),
    ],
)
def test_who_cannot_make_a_part_is_named(install: Install, function: Callable[..., object], said: str) -> None:
    function.__name__ = "schedule"
    plugins = install(mine=[function], other=[allocate_kv])
    with pytest.raises(PluginError, match=f"^plugin 'mine': {said}; VELOLLM_BLOCK_PLUGINS=mine leaves it out$"):
        engine(installed_parts(plugins))


def test_of_two_that_answer_the_one_that_failed_is_named(install: Install) -> None:
    def schedule(limits):
        raise KeyError("x")

    def other(limits):
        return None

    other.__name__ = "schedule"
    with pytest.raises(PluginError, match=r"^plugin 'first': hook 'schedule' failed: KeyError"):
        engine(installed_parts(install(first=[schedule], second=[other])))


def test_who_hangs_is_left_behind(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    def schedule(limits):
        time.sleep(60)

    monkeypatch.setattr("velollm_core.plugins.CALL_SECONDS", 0.05)
    with pytest.raises(PluginError, match=r"plugin 'slow': hook 'schedule' failed: Hung: no answer"):
        engine(installed_parts(install(slow=[schedule])))


def test_a_part_that_fails_in_a_step_is_named(install: Install) -> None:
    class Breaks(ContinuousScheduler):
        def schedule(self) -> SchedulerOutput:
            raise ZeroDivisionError("division by zero")

    def schedule(limits, blocks):
        return Breaks(limits, blocks)

    loop = engine(installed_parts(install(mine=[schedule])))
    loop.scheduler.add(Sequence("a", [1], SamplingParams(max_tokens=2)))
    with pytest.raises(PluginError, match=r"^plugin 'mine': failed in the engine's schedule\(\): ZeroDivisionError"):
        list(loop.run())


def test_a_scheduler_that_plans_nothing_is_an_error(install: Install) -> None:
    class Sleeps(ContinuousScheduler):
        def schedule(self) -> SchedulerOutput:
            return SchedulerOutput(1)

    def schedule(limits, blocks):
        return Sleeps(limits, blocks)

    loop = engine(installed_parts(install(mine=[schedule])))
    loop.scheduler.add(Sequence("a", [1], SamplingParams(max_tokens=2)))
    with pytest.raises(VeloError, match="has work and plans nothing"):
        list(loop.run())


SOURCE = """
import sys
from velollm_core.engine.continuous import ContinuousScheduler
from velollm_core.hookspecs import hookimpl

@hookimpl
def schedule(limits, blocks):
    print("mine was asked", file=sys.stderr)
    return ContinuousScheduler(limits, blocks)
"""


def test_a_simulated_plan_runs_under_it_too(tmp_path: Path) -> None:
    model = write_test_model(tmp_path / "model.gguf")
    install_plugin(tmp_path / "site", "mine", SOURCE)
    done = run_cli(
        "plan", model, "--basis", "formula", "--simulate", "burst:4", "--json", plugins=[tmp_path / "site"],
        home=tmp_path / "home", environment={"VELOLLM_ONLY_PLUGINS": "mine"},
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert "mine was asked" in done.stderr
    assert json.loads(done.stdout)

"""Candidates, their names, and those that need not be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from attrs import evolve

from velollm_core.autopilot.shape import Shape
from velollm_core.backends.setting import Plan, Setting, Value
from velollm_core.backends.variation import Option
from velollm_core.models.load import LoadSettings
from velollm_core.models.source import load_spec
from velollm_core.testing import some_hardware
from velollm_core.testing.test_model import write_test_model
from velollm_core.tuning.candidate import Candidate, measured_plan, planned, with_option
from velollm_core.tuning.pruning import Pruner


def setting(name: str, value: Value) -> Setting:
    return Setting(name, value, "flag", "a test", "rule")


PLAN = Plan("fake", "m", (setting("threads", 2), setting("flash", "auto")), load=LoadSettings(1024))
OFF = Option((setting("flash", "off"),), {"flash_attn": "off"})
NEW = Option((setting("ubatch", 64),), {"ubatch": 64})


def test_names_say_what_differs_from_the_plan() -> None:
    base = planned(PLAN)
    off = with_option(base, OFF, PLAN)
    both = with_option(off, NEW, PLAN)
    assert [each.name for each in (base, off, both)] == ["planned", "flash=off", "flash=off ubatch=64"]
    assert both.load == LoadSettings(1024, flash_attn="off", ubatch=64)
    back = with_option(both, Option((setting("flash", "auto"),), {"flash_attn": "auto"}), PLAN)
    assert back.name == "ubatch=64"
    assert with_option(base, Option((setting("threads", 2),)), PLAN) == base


def test_only_what_was_raced_rests_on_measurement() -> None:
    plan = measured_plan(PLAN, with_option(planned(PLAN), OFF, PLAN), ["flash"])
    assert [(each.name, each.value, each.evidence) for each in plan.settings] == [
        ("threads", 2, "rule"),
        ("flash", "off", "measured"),
    ]


@pytest.fixture
def pruner(tmp_path: Path) -> Pruner:
    """For the test model on a recorded machine."""
    return Pruner(load_spec(str(write_test_model(tmp_path / "model.gguf"))), some_hardware(), Shape(64, 16))


def test_what_cannot_fit_or_load_is_left_out_with_its_reason(pruner: Pruner) -> None:
    load = LoadSettings(1024)
    field = [
        Candidate("planned", (), load),
        Candidate("huge", (), evolve(load, total_context=2**40)),
        Candidate("refused", (), evolve(load, flash_attn="off", type_v="q8_0")),
        Candidate("fine", (), evolve(load, ubatch=64)),
        Candidate("unknown", ()),
    ]
    assert [each.name for each in pruner.keep(field)] == ["planned", "fine", "unknown"]
    assert [each.candidate for each in pruner.pruned] == ["huge", "refused"]
    assert all(each.reason for each in pruner.pruned)

"""What may be varied about a plan for llama.cpp: only what it would take."""

from __future__ import annotations

import pytest
from velollm_llamacpp.settings import ALTERING, chosen
from velollm_llamacpp.variations import variations

from velollm_core.backends.setting import Plan, Setting, Value
from velollm_core.models.load import LoadSettings
from velollm_core.testing import some_hardware
from velollm_core.tuning.candidate import planned, with_option


def plan_of(**values: Value) -> Plan:
    settings = {"--cache-type-k": "f16", "--cache-type-v": "f16", "--flash-attn": "auto", **values}
    made = tuple(Setting(name, value, "flag", "why", "rule") for name, value in settings.items())
    return Plan("llamacpp", "m", made, load=LoadSettings(4096))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"--batch-size": 512, "--ubatch-size": 512, "--parallel": 4},
        {"--cache-type-k": "q8_0", "--cache-type-v": "q8_0", "--flash-attn": "on"},
    ],
)
def test_every_combination_is_one_that_llamacpp_takes(values: dict[str, Value]) -> None:
    plan = plan_of(**values)
    candidates = [planned(plan)]
    for variation in variations(plan, some_hardware()):
        assert len(variation.options) > 1
        candidates = [with_option(each, option, plan) for each in candidates for option in variation.options]
    for candidate in candidates:
        found = chosen(candidate.settings)
        assert candidate.load is not None
        assert candidate.load.type_v == found["--cache-type-v"]
        assert candidate.load.ubatch == found["--ubatch-size"]
        assert int(str(found["--ubatch-size"])) <= int(str(values.get("--batch-size", 2048)))


def test_a_cache_that_had_to_be_small_stays_small() -> None:
    plan = plan_of(**{"--cache-type-k": "q8_0", "--cache-type-v": "q8_0", "--flash-attn": "on"})
    attention = next(each for each in variations(plan, some_hardware()) if each.name == "attention")
    assert all(option.values["--cache-type-k"] == "q8_0" for option in attention.options)
    assert all(option.values.keys() <= ALTERING for option in attention.options)


def test_slots_are_divided_only_where_there_are_several() -> None:
    names = [each.name for each in variations(plan_of(**{"--parallel": 4}), some_hardware())]
    assert "cache" in names
    assert "cache" not in [each.name for each in variations(plan_of(), some_hardware())]
